"""The bench of the published configs on one accelerator, with the largest batch that it has room for."""

import dataclasses
import gc
from typing import Any

import jax
from ml_collections import ConfigDict

from amd_jax import sharding
from amd_jax.config_files import load
from amd_jax.errors import ConfigError
from amd_jax.gpu_check.rows import MEASURED, Setting
from amd_jax.measuring.findings import Findings, figures, rate
from amd_jax.measuring.measure import PHOTOGRAPHS, Options, measure
from amd_jax.train import preflight
from amd_jax.train import program as programs

ROOM = 0.85  # of a device's memory that a step may need by the compiler, which does not count everything
STEPS = 20  # that are timed
MOST = {"vitb_in1k": 2048, "vitb_k400": 256}  # of a batch: larger ones are no faster
# Compiled for its memory alone: choosing the fastest kernels is what takes long.
UNTUNED: dict[str, Any] = {"xla_gpu_autotune_level": 0}


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is timed: a config with its memory spent in one way or another."""

    config: str
    attention: str
    remat: bool

    @property
    def name(self) -> str:
        """For the command line and the table."""
        return f"{self.config},{self.attention},{'remat' if self.remat else 'plain'}"


# The first one of each config also says how long the first step takes, cold and warm.
VARIANTS = [
    Variant(config, attention, remat)
    for attention, remat in (("xla", False), ("cudnn", False), ("cudnn", True), ("xla", True))
    for config in MOST
]


def variants(full: bool) -> list[Variant]:
    """In the order in which they are worth knowing; a CPU shows with the first that they run."""
    return VARIANTS if full else VARIANTS[:1]


def check(setting: Setting, name: str) -> None:
    """Times the variant of this name."""
    variant = next(v for v in VARIANTS if v.name == name)
    config = load(variant.config, "" if setting.full else "smoke")
    config.teacher.random = True
    config.mesh.data = 1
    config.model.remat, config.model.attention = variant.remat, variant.attention
    config.batch_size = largest_batch(config, MOST[variant.config]) if setting.full else 8
    cold = setting.full and (variant.attention, variant.remat) == ("xla", False)
    options = Options(STEPS if setting.full else 2, warmup=1, cold=cold, input=False)
    while (found := _timed(f"configs/{variant.config}.py", config, options)) is None:
        gc.collect()
        config.batch_size //= 2
    setting.add("speed", name, MEASURED, _text(found), figures(found))


def _timed(name: str, config: ConfigDict, options: Options) -> Findings | None:
    """The numbers; None where the batch had no room after all, and could be smaller."""
    try:
        (found,) = measure([(name, config)], options, jax.devices()[:1]).programs
    except (ConfigError, RuntimeError) as error:  # it was checked, or tried
        no_room = isinstance(error, ConfigError) or "RESOURCE_EXHAUSTED" in str(error)
        if not no_room or config.batch_size < 2:
            raise
        return None
    return found


def largest_batch(config: ConfigDict, most: int) -> int:
    """Examples that a step has room for: on a line through the memory of two small batches, rounded down.

    Raises:
      ConfigError: not even a small one has room.
    """
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    available = preflight.device_memory(mesh)
    if available is None:
        raise ConfigError("the device does not say how much memory it has")
    small = 32 // config.data.repeats
    few, more = (_memory(config, mesh, batch) for batch in (small, 2 * small))
    each = max(1.0, (more - few) / small)
    fits = int(small + (ROOM * available - few) / each)
    if fits < small:
        raise ConfigError(f"{small} examples need {few / 2**30:.1f} of {available / 2**30:.1f} GiB")
    return min(most, fits // small * small)


def _memory(config: ConfigDict, mesh: jax.sharding.Mesh, batch: int) -> int:
    """Bytes that a step needs, by the compiler; nothing is allocated."""
    config = config.copy_and_resolve_references()
    config.batch_size = batch
    lowered = programs.build(config, mesh, *PHOTOGRAPHS).lower()
    platform = mesh.devices.flat[0].platform
    try:
        options = UNTUNED if platform == "gpu" else None
        compiled = lowered.compile(compiler_options=options)
    except RuntimeError:  # a compiler that wants to choose its kernels all the same
        compiled = lowered.compile()
    return preflight.step_memory(compiled, platform) or 0


def _text(f: Findings) -> str:
    parts = [
        f"batch {f.batch_size}: {f.step.median * 1e3:.1f} ms a step",
        f"{f.examples_per_second:,.1f} views/s",
        f"{f.of_ceiling:.1%} of {rate(f.ceiling)} in matrix products",
    ]
    if f.mfu is not None:
        parts.append(f"MFU {f.mfu:.1%}")
    if f.needed is not None and f.available is not None:
        parts.append(f"{f.needed / 2**30:.1f} of {f.available / 2**30:.1f} GiB")
    if f.cold is not None:
        parts.append(f"first step {f.cold.total:.0f} s, {f.start.total:.0f} s with what was compiled")
    return ", ".join(parts)
