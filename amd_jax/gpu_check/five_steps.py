"""Five steps of every method on the GPU and on this machine's CPU, from the same weights and batches."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax import sharding
from amd_jax.config_files import load
from amd_jax.gpu_check.rows import Setting, judged
from amd_jax.train.program import Program, build, where
from amd_jax.train.random_arrays import QUICK_COMPILE, draw, random_batch

STEPS, CLASSES = 5, 10
CONFIGS = {
    "amd": "vitb_in1k",
    "dmae": "dmae_vitb_in1k",
    "mae": "mae_vitb_in1k",
    "videomae": "videomae_vitb_k400",
    "kd": "kd_vitb_in1k",
    "finetune": "finetune_vitb_in1k",
}
WATCHED = ("loss", "grad_norm")
# Relative differences of these in any of the steps. AdamW makes steps of equal size out of gradients of any
# size, so rounding errors grow. For scale: with AMD's larger networks below, two levels of optimisation of
# the CPU's compiler differ by 1e-7 and 8e-8 in float32, by 2e-5 and 7e-5 in bfloat16, and the two types from
# each other by 3e-4 and 1.4e-3.
TOLERANCES = {"float32": (1e-4, 1e-3), "bfloat16": (5e-3, 2e-2)}


def check(setting: Setting, method: str) -> None:
    """A method in both types; on a GPU, AMD also with cuDNN's attention, whose CPU side has XLA's."""
    for dtype in TOLERANCES:
        _compare(setting, method, dtype, "xla")
    if setting.full and method == "amd":
        _compare(setting, method, "bfloat16", "cudnn")


def config_of(method: str, full: bool) -> ConfigDict:
    """The smoke config of a method; on an accelerator with larger networks, whose products keep it busy."""
    config = load(CONFIGS[method], "smoke")
    if full:
        config.data.image_size = 64
        config.student.size, config.teacher.size = "tiny", "small"
        config.student.depth = config.teacher.depth = 4
        config.decoder.width, config.decoder.heads = 128, 4
    return config


def _compare(setting: Setting, method: str, dtype: str, attention: str) -> None:
    config = config_of(method, setting.full)
    config.model.dtype = dtype
    cpu = _program(config, jax.devices("cpu")[0])
    programs = {"cpu": (cpu, _compiled(cpu))}
    config.model.attention = attention
    here = _program(config, jax.devices()[0])
    programs["here"] = (here, _compiled(here)) if setting.full else programs["cpu"]
    state = jax.device_get(draw(cpu.init_state, config.seed, cpu.state, {}))
    teacher = jax.device_get(draw(cpu.init_teacher, config.seed + 1, cpu.teacher)) if cpu.teacher else {}
    found = {who: _steps(*program, state, teacher) for who, program in programs.items()}
    worst = {name: _difference(found["here"][name], found["cpu"][name]) for name in WATCHED}
    limits = dict(zip(WATCHED, TOLERANCES[dtype], strict=True))
    text = ", ".join(f"{name} {worst[name]:.1e} of {limits[name]:.0e}" for name in WATCHED)
    text += f"; loss {found['here']['loss'][0]:.5f} to {found['here']['loss'][-1]:.5f}"
    label = f"{method} {dtype}" + (f" {attention}" if attention != "xla" else "")
    setting.add("five steps", label, judged((worst[n], limits[n]) for n in WATCHED), text, found)


def _program(config: ConfigDict, device: jax.Device) -> Program:
    return build(config, sharding.make_mesh(devices=[device]), 10_000, CLASSES)


def _compiled(program: Program) -> Any:
    """The step; products of float32 are computed as such, and not as NVIDIA's TF32."""
    quick = program.mesh.devices.flat[0].platform == "cpu"
    with jax.default_matmul_precision("highest"):
        return program.lower().compile(compiler_options=QUICK_COMPILE if quick else None)


def _steps(program: Program, step: Any, state: Any, teacher: Any) -> dict[str, list[float]]:
    """What is watched, by step."""
    state = sharding.place(state, where(program.state))
    teacher = sharding.place(teacher, where(program.teacher))
    found: dict[str, list[float]] = {name: [] for name in WATCHED}
    for number in range(STEPS):
        state, metrics = step(state, teacher, random_batch(program, CLASSES, number))
        for name in WATCHED:
            found[name].append(float(metrics[name]))
    return found


def _difference(ours: list[float], theirs: list[float]) -> float:
    """The largest relative one."""
    return float(np.max(np.abs(np.subtract(ours, theirs)) / np.abs(theirs)))
