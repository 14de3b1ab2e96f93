"""What the processes of one run do together."""

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

MINUTES = 20  # for the slowest: reading a teacher and compiling take each process its own time


def meet() -> None:
    """Returns when all processes are here. A collective on the devices alone waits half a minute on CPUs."""
    if jax.process_count() > 1:
        ocp.multihost.get_barrier_sync_fn()(key="amd_jax_meet", timeout_ms=MINUTES * 60_000)


def agreed(value: int) -> int:
    """Process 0's value, in all processes; they meet here."""
    if jax.process_count() == 1:
        return value
    meet()
    with jax.transfer_guard("allow"):
        return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
