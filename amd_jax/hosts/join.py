"""A process joins its run: the others are waited for and compared, then jax is told of them."""

import ctypes
import math
import signal
from collections.abc import Sequence

import jax
from absl import logging
from jax._src.clusters import ClusterEnv  # what `jax.distributed.initialize` asks; there is no public name

from amd_jax.errors import ConfigError
from amd_jax.hosts import alike, star
from amd_jax.hosts.meeting import Place, assemble
from amd_jax.hosts.star import Star

LATER = 60  # seconds by which jax notices a lost process later than we do


def join(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    facts: alike.Facts,
    minutes: float = 10,
    lost_seconds: float = 100,
) -> None:
    """Returns when all processes of the run are here; `star.current` is then set where there are several.

    Args:
      coordinator: HOST:PORT of process 0; None: what starts the processes (SLURM, a TPU pod, …) says so.
      processes: how many there are; None as above.
      process: the number of this one; None as above.
      facts: what has to be alike in all.
      minutes: for the last to come.
      lost_seconds: after which a process of which nothing is heard counts as gone.

    Raises:
      ConfigError: in all processes that came.
    """
    place, devices = _place(coordinator, processes, process, minutes)
    if place.count > 1:
        hosts, wires, odd = assemble(place, minutes)
        star.current = Star(place.index, hosts, wires, lost_seconds)
        for line in odd:
            logging.warning(line)
        alike.check(facts)
        _delay_aborts()
    timeout = math.ceil(lost_seconds) + LATER
    try:
        jax.distributed.initialize(
            place.address, place.count, place.index, devices,
            initialization_timeout=timeout, heartbeat_timeout_seconds=timeout,
        )  # fmt: skip
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"--distributed: {error}") from error


def _place(
    coordinator: str | None, processes: int | None, process: int | None, minutes: float
) -> tuple[Place, Sequence[int] | None]:
    """Where this process belongs, and which devices of its host are its own; None: all."""
    devices: Sequence[int] | None = None
    if None in (coordinator, processes, process):
        given = (coordinator, processes, process, None, None, math.ceil(minutes * 60))
        try:
            found = ClusterEnv.auto_detect_unset_distributed_params(*given)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"--distributed: {error}") from error
        coordinator, processes, process, devices = found
    if coordinator is None or processes is None or process is None:
        raise ConfigError(
            "--distributed: nothing here tells the processes of each other; give --coordinator, --processes "
            "and --process"
        )
    if not 0 <= process < processes:
        raise ConfigError(f"--process={process}: of {processes} processes, give 0 to {processes - 1}")
    return Place(coordinator, processes, process), devices


def _delay_aborts() -> None:
    """Lets `Star` say which process is gone before jax aborts this one.

    jax calls `abort` from a thread of its own as soon as it misses process 0, and cannot be told not to. The
    signal of that is handed to the C function `sleep`, which takes its number, 6, for seconds; then `abort`
    goes on.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
