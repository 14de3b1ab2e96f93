"""Where a run would take place: a topology's name as described devices, or as a number of known chips."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from amd_jax.errors import ConfigError
from amd_jax.hardware import CHIPS, TOPOLOGY_OPTIONS, Chip

# What libtpu and jax read when they are imported: no TPU is to be looked for, no cloud asked, and another
# process may use libtpu too.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
EXAMPLES = "v5e:16x16, v6e:8x8, v5p:4x4x4, v4:2x2x4, gpu:8xa100, gpu:h200 or cpu"


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to plan for.

    Attributes:
      topology: as the user named it.
      chip: what is known of one; None: the CPU, of which nothing is.
      chips: how many.
    """

    topology: str
    chip: Chip | None
    chips: int

    @property
    def platform(self) -> str:
        """As jax calls it."""
        return self.chip.platform if self.chip else "cpu"

    @property
    def compiled(self) -> bool:
        """Whether there is a compiler to ask."""
        return self.platform == "tpu"

    @property
    def hosts(self) -> int:
        """Machines that read the data."""
        if self.chip is None or self.topology in TOPOLOGY_OPTIONS:
            return 1
        return max(1, self.chips // self.chip.per_host)


def target(topology: str) -> Target:
    """The devices that a name means.

    Raises:
      ConfigError: it means none.
    """
    if topology == "cpu":
        return Target(topology, None, 1)
    if gpu := re.fullmatch(r"gpu:(?:(\d+)x)?(\w+)", topology):
        number, name = int(gpu[1] or 1), gpu[2]
        if name in CHIPS and CHIPS[name].platform == "gpu" and number:
            return Target(topology, CHIPS[name], number)
    elif tpu := re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", topology):
        sizes = [int(size) for size in tpu[2].split("x")]
        if tpu[1] in CHIPS and CHIPS[tpu[1]].platform == "tpu" and min(sizes):
            return Target(topology, CHIPS[tpu[1]], math.prod(sizes))
    raise ConfigError(f"--topology={topology}: not known; they look like {EXAMPLES}")


def find_libtpu() -> str:
    """The version of libtpu; it may lie by itself in the environment's folder `tpu`, where only plans look.

    Raises:
      ConfigError: it is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        sys.path.append(str(Path(sys.prefix) / "tpu"))
        importlib.invalidate_caches()
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "the TPU compiler is not installed: pip install -r requirements-plan.txt (or 'amd_jax[plan]'; "
            "Linux x86-64)"
        )
    return metadata.version("libtpu")


def devices(where: Target) -> list[Any]:
    """Devices to build a program for: descriptions of TPUs, otherwise this machine's CPU split into as many.

    Raises:
      ConfigError: there is no such slice, or no description of one.
    """
    import jax
    from jax.experimental import topologies

    if not where.compiled:
        with contextlib.suppress(RuntimeError):  # once jax has looked for devices, their number is fixed
            jax.config.update("jax_num_cpu_devices", where.chips)
        found = jax.devices("cpu")[: where.chips]
        if len(found) < where.chips:
            raise ConfigError(
                f"--topology={where.topology}: only {len(found)} CPU devices to describe it with"
            )
        return found
    find_libtpu()
    name = where.topology
    options = TOPOLOGY_OPTIONS.get(name, TOPOLOGY_OPTIONS.get(name.split(":")[0], {}))
    try:
        with quiet():
            described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        what = str(error).splitlines()[0].partition(": ")[2] or str(error)
        raise ConfigError(f"--topology={name}: {what}") from error
    return list(described.devices)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back what libraries write to the standard error, and shows it if something breaks."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception as error:
            held.seek(0)
            error.add_note(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
