"""The demo: on 10,000 small images a MAE teacher, then the same small student by AMD and by plain MAE.

    bash launch/demo.sh

runs, one after the other, with D = runs/demo:

    python -m amd_jax.main --config=configs/demo.py:teacher --workdir=D/teacher
    python -m amd_jax.main --config=configs/demo.py:mae --workdir=D/mae
    python -m amd_jax.main --config=configs/demo.py:amd --workdir=D/amd --config.teacher.weights=D/teacher
    python -m amd_jax.probe --untrained D/mae D/amd D/teacher

Expected: linear-probe accuracy untrained < MAE < AMD < teacher (figures in README.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "amd") -> ConfigDict:
    """`:teacher`, `:mae` or `:amd`; `:smoke` shrinks the last."""
    config = common.base()
    config.data.source = "embedded"
    config.data.image_size, config.data.channels = 28, 1
    config.data.mean, config.data.std = (0.286,), (0.353,)
    config.data.crop_scale = (0.5, 1.0)
    config.model.patch_size = 4

    # Encoders have no name of their own at this size; decoders are as small as MAE's are beside its encoder.
    config.teacher.width, config.teacher.depth, config.teacher.heads = 96, 6, 3
    config.student.width, config.student.depth, config.student.heads = 48, 4, 3
    config.decoder.width, config.decoder.depth, config.decoder.heads = 32, 1, 2
    config.mask.student_visible, config.mask.teacher_visible = 12, 24
    config.align.student_layers, config.align.teacher_layers = (2, 4), (3, 6)
    config.align.generator_depth = 1
    # Published AMD does not normalise; at this size a MAE teacher's features are of very uneven scale.
    config.loss.feature_norm = "layernorm"
    config.batch_size = 64
    config.data.threads = 1  # on images this small threads only fight over the interpreter
    config.optim.base_lr = 4e-3  # 1e-3 at this batch size
    config.log.every, config.log.pictures_every, config.checkpoint.every = 100, 500, 500

    steps = {"teacher": 3000, "mae": 1000, "amd": 1000, "smoke": 1000}
    if argument not in steps:
        raise ValueError(f"config argument {argument!r}: choose one of {', '.join(steps)}")
    config.steps = steps[argument]
    config.optim.warmup_steps = config.steps // 10
    if argument in ("teacher", "mae"):
        config.method = "mae"
    if argument == "teacher":
        for name in ("width", "depth", "heads"):
            config.student[name] = config.teacher[name]
    return common.finish(config, argument if argument == "smoke" else "")
