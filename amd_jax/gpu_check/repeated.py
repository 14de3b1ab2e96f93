"""Whether a run repeats itself to the bit: twice in one process, and in another one."""

import hashlib

import jax
import numpy as np

from amd_jax import sharding
from amd_jax.gpu_check.five_steps import CLASSES, config_of
from amd_jax.gpu_check.rows import DIFFERS, OK, Row, Setting
from amd_jax.train import program as programs
from amd_jax.train.random_arrays import QUICK_COMPILE, draw, random_batch

STEPS = 20
CHECK = "repeated"


def check(setting: Setting) -> None:
    """Twenty steps of AMD, on a CPU of MAE, twice; whoever reads the rows asks another process."""
    if setting.full:  # each process is to choose its kernels anew
        jax.config.update("jax_enable_compilation_cache", False)
    config = config_of("amd" if setting.full else "mae", setting.full)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    run = programs.build(config, mesh, 10_000, CLASSES)
    step = run.lower().compile(compiler_options=None if setting.full else QUICK_COMPILE)
    teacher = draw(run.init_teacher, config.seed + 1, run.teacher) if run.teacher else {}
    sums = []
    for _ in range(2):
        state = draw(run.init_state, config.seed, run.state, {})
        for number in range(STEPS):
            state, _ = step(state, teacher, random_batch(run, CLASSES, number))
        sums.append(_checksum(state.params))
    result = OK if sums[0] == sums[1] else DIFFERS
    text = f"parameters after {STEPS} steps: {' and '.join(dict.fromkeys(sums))}"
    setting.add(CHECK, "one program, twice", result, text, {"sum": sums[0]})


def across(first: list[Row], second: list[Row]) -> list[Row]:
    """The row that two processes make together; none where one of them found nothing."""
    sums = [row.numbers["sum"] for rows in (first, second) for row in rows if "sum" in row.numbers]
    if len(sums) < 2:
        return []
    result = OK if sums[0] == sums[1] else DIFFERS
    text = f"compiled by each for itself: {' and '.join(dict.fromkeys(sums))}"
    return [Row(CHECK, "two processes", result, text)]


def _checksum(tree: object) -> str:
    """Of all bits, in short."""
    leaves = (np.asarray(x).tobytes() for x in jax.tree.leaves(jax.device_get(tree)))
    return hashlib.sha256(b"".join(leaves)).hexdigest()[:12]
