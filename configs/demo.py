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
    common.small_images(config)
    config.log.every, config.log.pictures_every, config.checkpoint.every = 100, 500, 500

    steps = {"teacher": 3000, "mae": 1000, "amd": 1000, "smoke": 1000}
    if argument not in steps:
        raise ValueError(f"config argument {argument!r}: choose one of {', '.join(steps)}")
    config.steps = steps[argument]
    config.optim.warmup_steps = config.steps // 10
    if argument in ("teacher", "mae"):
        config.method = "mae"
    if argument == "teacher":
        config.student.update(common.teacher_as_student(config))
    return common.finish(config, argument if argument == "smoke" else "")
