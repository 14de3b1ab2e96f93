"""A run's program on one set of devices, and on others of its shapes: meshes, passes, remat."""

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from amd_jax import hardware
from amd_jax.errors import ConfigError
from amd_jax.planning.compiling import Compiled, compiled
from amd_jax.planning.printed import gib, ms, table
from amd_jax.planning.roofline import Estimate, estimate
from amd_jax.planning.target import Target, devices, find_libtpu
from amd_jax.train import program as programs

FSDP, PASSES, REMAT = (1, 8), (1, 2), (False, True)
BEAT = 30  # seconds between signs of life while a compiler works


class Planner:
    """Plans runs on one set of devices."""

    def __init__(self, where: Target, examples: int, classes: int, say: Callable[[str], None]) -> None:
        """Describes the devices.

        Args:
          where: the devices.
          examples: of the training split.
          classes: of its labels.
          say: takes a line of progress.

        Raises:
          ConfigError: there are no such devices.
        """
        self._where, self._examples, self._classes, self._say = where, examples, classes, say
        self._devices = devices(where)

    def plan(self, config: ConfigDict) -> Estimate:
        """The numbers of a config.

        Raises:
          ConfigError: it cannot run on these devices.
        """
        config = hardware.resolved(config, self._where.platform)
        if config.model.attention == "cudnn":
            config.model.attention = "xla"  # of the same shapes, and also for CPUs
        mesh = programs.make_mesh(config, self._devices)
        run = programs.build(config, mesh, self._examples, self._classes)
        return estimate(run, self._where, self._examples, self._compiled(run))

    def _compiled(self, run: programs.Program) -> Compiled | None:
        if not self._where.compiled:
            return None
        config = run.config
        keys = f"mesh.fsdp={config.mesh.fsdp}, accum_steps={config.accum_steps}, "
        keys += f"model.remat={config.model.remat}, batch_size={config.batch_size}"
        self._say(f"lowering the step of {keys}")
        lowered = run.lower()
        options = hardware.compiler_options(self._where.platform)
        name = f"libtpu {find_libtpu()}, {self._where.topology}, {options}"
        with _signs_of_life(self._say):
            return compiled(lowered, name, list(run.mesh.devices.flat), self._say)


@dataclasses.dataclass(frozen=True)
class Row:
    """One try: the keys that were changed, and its numbers or why there are none."""

    fsdp: int
    accum_steps: int
    remat: bool
    batch_size: int
    estimate: Estimate | None
    refused: str = ""


def sweep(planner: Planner, config: ConfigDict, own: Estimate) -> list[Row]:
    """Tries a small grid around a config, and half its batch; the config's own row comes first."""
    mine = (config.mesh.fsdp, config.accum_steps, config.model.remat)
    rows = [Row(*mine, config.batch_size, own)]
    grid = [point for point in itertools.product(FSDP, PASSES, REMAT) if point != mine]
    for fsdp, accum_steps, remat in grid:
        rows.append(_try(planner, config, fsdp, accum_steps, remat, config.batch_size))
    rows.append(_try(planner, config, *mine, config.batch_size // 2))
    return rows


def fastest(rows: list[Row]) -> Row | None:
    """The row whose step takes least as compiled, of those that fit, at the config's own batch."""
    fitting = [
        (row.estimate.as_compiled, row.estimate.need, i)
        for i, row in enumerate(rows)
        if row.estimate and row.estimate.fits is not False and row.batch_size == rows[0].batch_size
        and row.estimate.as_compiled is not None
    ]  # fmt: skip
    return rows[min(fitting)[2]] if fitting else None


def largest_batch(rows: list[Row]) -> int | None:
    """Examples that fit if memory is a line through the config's own batch and half of it; None: unknown."""
    whole, half = rows[0].estimate, rows[-1].estimate
    if whole is None or half is None or whole.available is None or not (whole.compiled and half.memory):
        return None
    if whole.too_large or half.too_large or whole.need <= half.need:
        return None
    slope = (whole.need - half.need) / (whole.batch_size - half.batch_size)
    most = int(whole.batch_size + (whole.available - whole.need) / slope)
    return most // whole.multiple * whole.multiple


def page(rows: list[Row]) -> str:
    """The tries as a table, and which is best."""
    best = fastest(rows)
    lines = [_line(row, row is best) for row in rows]
    text = "Other shapes\n"
    text += table(("batch", "fsdp", "passes", "remat", "memory", "fits", "compute", "HBM", "ICI", ""), lines)
    for row in rows:
        if row.refused:
            text += f"\n  batch {row.batch_size}, fsdp={row.fsdp}, {row.accum_steps} passes: {row.refused}"
    if best is not None:
        keys = f"--config.mesh.fsdp={best.fsdp} --config.accum_steps={best.accum_steps}"
        text += f"\nFastest that fits: {keys} --config.model.remat={best.remat}"
    if (largest := largest_batch(rows)) is not None:
        text += f"\nLargest batch: about {largest}, on a line through two compiled batches (estimate)."
    return text + "\n"


def _try(
    planner: Planner, config: ConfigDict, fsdp: int, accum_steps: int, remat: bool, batch_size: int
) -> Row:
    config = config.copy_and_resolve_references()
    config.mesh.data, config.mesh.fsdp = -1, fsdp
    config.accum_steps, config.model.remat, config.batch_size = accum_steps, remat, batch_size
    try:
        return Row(fsdp, accum_steps, remat, batch_size, planner.plan(config))
    except ConfigError as error:
        return Row(fsdp, accum_steps, remat, batch_size, None, str(error))


def _line(row: Row, best: bool) -> tuple[str, ...]:
    keys = (str(row.batch_size), str(row.fsdp), str(row.accum_steps), "yes" if row.remat else "no")
    e = row.estimate
    if e is None:
        return (*keys, "-", "refused", "-", "-", "-", "")
    bounds = (e.bounds.get(name) for name in ("compute", "memory", "interconnect"))
    fits = {True: "yes", False: "no", None: "?"}[e.fits]
    times = ("-" if b is None or e.too_large else ms(b) for b in bounds)
    return (*keys, "-" if e.too_large else gib(e.need), fits, *times, "fastest" if best else "")


@contextlib.contextmanager
def _signs_of_life(say: Callable[[str], None]) -> Iterator[None]:
    """A line every BEAT seconds."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            say("still compiling")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
