"""The demo on videos: embedded images that move; the label is the motion, which no single frame shows.

    bash launch/demo_video.sh

makes the videos as H.264 files with a list, and runs, one after the other, with D = runs/demo_video:

    python -m amd_jax.main --config=configs/demo_video.py:teacher --workdir=D/teacher
    python -m amd_jax.main --config=configs/demo_video.py:videomae --workdir=D/videomae
    python -m amd_jax.main --config=configs/demo_video.py:amd --workdir=D/amd \\
        --config.teacher.weights=D/teacher

on these files, then `:finetune` of each of them and of random weights, `:frame`, which sees one frame of a
video, and a probe. As they stand here the runs take the videos from memory.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "amd") -> ConfigDict:
    """`:teacher`, `:videomae`, `:amd`, `:finetune` or `:frame`; `:smoke` shrinks `:amd`."""
    config = common.base()
    common.small_videos(config)
    config.data.threads = 2  # decoding does not hold the interpreter
    config.log.every, config.log.pictures_every, config.checkpoint.every = 100, 500, 500

    steps = {"teacher": 1500, "videomae": 1000, "amd": 1000, "finetune": 200, "frame": 300, "smoke": 1000}
    if argument not in steps:
        raise ValueError(f"config argument {argument!r}: choose one of {', '.join(steps)}")
    config.steps = steps[argument]
    config.optim.warmup_steps = config.steps // 10
    if argument in ("teacher", "videomae"):
        config.method = "mae"
    if argument == "teacher":
        config.student.update(common.teacher_as_student(config))
    if argument in ("finetune", "frame"):
        _finetune(config)
    if argument == "frame":  # with all labels
        config.data.share = 1.0
        config.data.frames = config.model.tubelet = 1
    return common.finish(config, argument if argument == "smoke" else "")


def _finetune(config: ConfigDict) -> None:
    """With labels of 1 % of the videos; their frames are seen whole."""
    config.method = "finetune"
    config.data.share = 0.01
    config.data.repeats = 1
    config.data.crop_scale = (1.0, 1.0)
    config.batch_size = 64
    config.optim.base_lr, config.optim.b2, config.optim.layer_decay = 4e-3, 0.999, 0.75
    config.finetune.drop_path = 0.1
    config.eval.every_epochs = 0.0
