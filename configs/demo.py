"""The demo: on 10,000 small images a MAE teacher, then the same small student by AMD and by plain MAE.

    bash launch/demo.sh

runs, one after the other, with D = runs/demo:

    python -m amd_jax.main --config=configs/demo.py:teacher --workdir=D/teacher
    python -m amd_jax.main --config=configs/demo.py:mae --workdir=D/mae
    python -m amd_jax.main --config=configs/demo.py:amd --workdir=D/amd --config.teacher.weights=D/teacher
    python -m amd_jax.probe --untrained D/mae D/amd D/teacher

Expected: linear-probe accuracy untrained < MAE < AMD < teacher (figures in README.md). What
docs/quickstart.ipynb does with such a student begins with labels:

    python -m amd_jax.main --config=configs/demo.py:finetune --workdir=D/tuned --config.student.weights=D/amd
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "amd") -> ConfigDict:
    """`:teacher`, `:mae`, `:amd` or `:finetune`; `:smoke` shrinks `:amd`."""
    config = common.base()
    config.data.source = "embedded"
    common.small_images(config)
    config.log.every, config.log.pictures_every, config.checkpoint.every = 100, 500, 500

    steps = {"teacher": 3000, "mae": 1000, "amd": 1000, "finetune": 400, "smoke": 1000}
    if argument not in steps:
        raise ValueError(f"config argument {argument!r}: choose one of {', '.join(steps)}")
    config.steps = steps[argument]
    config.optim.warmup_steps = config.steps // 10
    if argument in ("teacher", "mae"):
        config.method = "mae"
    if argument == "teacher":
        config.student.update(common.teacher_as_student(config))
    if argument == "finetune":  # as short, and with as large a rate, as in configs/compare_fashion.py
        config.method = "finetune"
        config.data.crop_scale, config.data.flip = (1.0, 1.0), False
        config.optim.base_lr, config.optim.b2, config.optim.layer_decay = 1.6e-2, 0.999, 0.75
        config.finetune.head_std = 0.02
        config.eval.every_epochs = 0.0
    return common.finish(config, argument if argument == "smoke" else "")
