"""Whether a run fits into the memory of its devices, asked before the first step."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax.errors import ConfigError

MEMINFO, STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
CGROUP = Path("/sys/fs/cgroup/memory.max")  # a container's share of the machine


def check_memory(what: str, need: int | None, limit: int | None, config: ConfigDict) -> None:
    """One line with the keys to change where `need` bytes are more than `limit`; None: nobody knows.

    Raises:
      ConfigError: it does not fit.
    """
    if need is None or limit is None or need <= limit:
        return
    remat = "" if config.model.remat else "set model.remat=True, "
    raise ConfigError(
        f"{what} needs {need / 2**30:.2f} GiB a device, which has {limit / 2**30:.2f}: "
        f"raise accum_steps (now {config.accum_steps}), {remat}raise mesh.fsdp (now {config.mesh.fsdp}), "
        f"or lower batch_size (now {config.batch_size})"
    )


def step_memory(compiled: Any, platform: str) -> int | None:
    """Bytes that a compiled program needs on each device of "cpu", "gpu" or "tpu", where the compiler says.

    The TPU's says how much is in use at the fullest moment, and accepts a program by that. On a CPU that
    figure leaves temporaries out, and on a GPU it has not been tried: there all temporaries count as if they
    lived at once.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    if platform == "tpu" and memory.peak_memory_in_bytes > 0:
        return int(memory.peak_memory_in_bytes)
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def tree_memory(abstract: Any) -> int:
    """Bytes of a device's part of the arrays, from their shapes and shardings."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(abstract)
    )


def device_memory(mesh: jax.sharding.Mesh) -> int | None:
    """Bytes that each device of `mesh` may use; the CPU's devices share what the machine has."""
    device = mesh.local_devices[0]
    stats = device.memory_stats()
    if stats is not None:
        return stats.get("bytes_limit")
    host = _host_memory() if device.platform == "cpu" else None
    return None if host is None else host // len(mesh.local_devices)


def _host_memory() -> int | None:
    """What is free and what this process has already, without swap; at most what its container may use."""
    try:
        lines = (line.split() for line in MEMINFO.read_text().splitlines())
        available = next(int(words[1]) for words in lines if words[0] == "MemAvailable:") * 1024
        held = int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, StopIteration, ValueError):  # no Linux
        return None
    try:
        return min(available + held, int(CGROUP.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return available + held
