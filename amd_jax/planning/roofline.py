"""The numbers of a plan: a chip's memory, the least time of a step, what hosts must deliver, hours."""

import dataclasses
import math
from typing import Any

import jax

from amd_jax import hardware
from amd_jax.planning.compiling import Compiled
from amd_jax.planning.counting import Collective, Counts, count
from amd_jax.planning.target import Target
from amd_jax.train.preflight import tree_memory
from amd_jax.train.program import Program

STATED_MFU = (0.5, 0.4, 0.3)  # what hours are also given for


@dataclasses.dataclass(frozen=True)
class Sent:
    """Collectives of one kind and type, added up over a step.

    Attributes:
      number: how many.
      bytes: of the arrays, see `Collective.bytes`.
      sent: bytes that each chip sends.
    """

    kind: str
    dtype: str
    group: int
    loop: bool
    overlapped: bool
    number: int
    bytes: int
    sent: float


@dataclasses.dataclass(frozen=True)
class Span:
    """The recipe at one speed: seconds of a step, model FLOPs utilisation (a fraction), hours, chip-hours."""

    label: str
    step: float
    mfu: float
    hours: float
    chip_hours: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is known of a run on devices that are not here.

    Attributes:
      topology: its name; `chips` and `hosts` are counted, `mesh` is the number of chips by axis.
      batch_size: examples of a step; each is seen `repeats` times.
      dtype: compute type.
      examples: of the training split; `steps` is the length of the run.
      memory: bytes a chip, by what they are for; without a compiler, the arrays only.
      available: bytes that a chip has; None: unknown.
      peak_memory: bytes at the fullest moment, as the compiler has it; less than the sum of `memory`, whose
        temporaries do not all live at once.
      too_large: what the compiler said of a program that does not fit.
      model_flops: of a step over all chips, see `Program.flops_per_step`.
      eight_bit: the teacher's type where it computes in eight bits, otherwise empty.
      eight_bit_flops: those of `model_flops` that it is for.
      compiled_flops: of a step on one chip, in matrix products, loops counted as often as they turn.
      compiled_eight_bit_flops: those of them whose factors have eight bits as compiled.
      traffic: bytes a step between a chip and its memory, see planning/traffic.py.
      sent: the collectives.
      unknown_loops: loops that were counted once since nobody knows how often they turn.
      bounds: seconds that a step takes at least, by what bounds it.
      waited: seconds of "interconnect" in which, as compiled, nothing else is done.
      input_bytes: that one view of an example has on its way to the chips.
      peak: FLOP/s of all chips in `dtype`; `eight_bit_peak` in the teacher's eight bits.
      compiled: whether a compiler was asked, and whether an earlier call had (`kept`).
    """

    topology: str
    chips: int
    hosts: int
    mesh: dict[str, int]
    batch_size: int
    repeats: int
    accum_steps: int
    remat: bool
    dtype: str
    examples: int
    steps: int
    memory: dict[str, int]
    available: int | None
    peak_memory: int | None
    too_large: str
    model_flops: float
    eight_bit: str
    eight_bit_flops: float
    compiled_flops: float | None
    compiled_eight_bit_flops: float | None
    traffic: float | None
    sent: tuple[Sent, ...]
    unknown_loops: int
    bounds: dict[str, float]
    waited: float
    peak: float | None
    eight_bit_peak: float | None
    input_bytes: int
    compiled: bool
    kept: bool

    @property
    def total(self) -> int:
        """Bytes that a chip needs, as far as they are known."""
        return sum(self.memory.values())

    @property
    def need(self) -> int:
        """Bytes at the fullest moment, which is what a run checks; the total where no compiler says."""
        return self.peak_memory or self.total

    @property
    def fits(self) -> bool | None:
        """Whether a chip has room; None: nobody knows, without a compiler or without a chip."""
        if self.too_large or (self.available is not None and self.need > self.available):
            return False
        return True if self.compiled and self.available is not None else None

    @property
    def bound(self) -> float | None:
        """Seconds that a step takes at least, if everything overlaps."""
        return max(self.bounds.values(), default=None)

    @property
    def as_compiled(self) -> float | None:
        """Seconds that a step takes at least, if what is waited for overlaps with nothing."""
        rest = [seconds for name, seconds in self.bounds.items() if name != "interconnect"]
        overlapped = self.bounds.get("interconnect", 0.0) - self.waited
        return max(*rest, overlapped) + self.waited if rest else None

    @property
    def multiple(self) -> int:
        """What a batch has to be a multiple of."""
        shards = self.mesh["data"] * self.mesh["fsdp"] * self.accum_steps
        return shards // math.gcd(shards, self.repeats)

    @property
    def largest_batch(self) -> int | None:
        """Examples of the largest batch that fits, if temporaries grow as the batch does; None: unknown."""
        growing = self.memory.get("temporaries", 0) + self.memory["batch"]
        if self.available is None or "temporaries" not in self.memory:
            return None
        fixed = self.total - growing
        room = (self.available - fixed) / (self.need - fixed)
        return max(0, int(self.batch_size * room) // self.multiple * self.multiple)

    @property
    def views(self) -> int:
        """Examples that the networks see in a step."""
        return self.batch_size * self.repeats

    def spans(self) -> list[Span]:
        """The recipe at the bound and at stated MFUs that do not beat it; none where no bound is known."""
        if self.bound is None or self.as_compiled is None or self.peak is None:
            return []
        ideal = _seconds(self.model_flops, self.eight_bit_flops, (self.peak, self.eight_bit_peak))
        found = [self._span("at the bound", self.bound, ideal)]
        if self.as_compiled > self.bound:
            found.append(self._span("and with what is waited for", self.as_compiled, ideal))
        stated = (self._span(f"at {mfu:.0%} MFU", ideal / mfu, ideal) for mfu in STATED_MFU)
        return [*found, *(span for span in stated if span.step >= self.bound)]

    def _span(self, label: str, step: float, ideal: float) -> Span:
        hours = self.steps * step / 3600
        return Span(label, step, ideal / step, hours, hours * self.chips)


def figures(found: Estimate) -> dict[str, Any]:
    """All numbers of an estimate, also those that follow from others, for a file."""
    follow = ("total", "fits", "bound", "as_compiled", "views", "largest_batch")
    derived = {name: getattr(found, name) for name in follow}
    return dataclasses.asdict(found) | derived | {"spans": [dataclasses.asdict(s) for s in found.spans()]}


def estimate(program: Program, where: Target, examples: int, compiled: Compiled | None) -> Estimate:
    """The numbers of a program.

    Args:
      program: built for the devices of `where`.
      where: these devices.
      examples: of the training split.
      compiled: what a compiler made of the program; None: none was asked.
    """
    config = program.config
    counts = count(compiled.text) if compiled and compiled.text else None
    memory = _memory(program, compiled)
    available = where.chip.memory if where.chip else None
    one, eight = (
        hardware.peak_flops(where.chip.kind, dtype) if where.chip else None
        for dtype in (config.model.dtype, config.teacher.dtype)
    )
    model = (program.flops_per_step, program.eight_bit_flops_per_step)
    views = config.batch_size * config.data.repeats
    return Estimate(
        topology=where.topology,
        chips=where.chips,
        hosts=where.hosts,
        mesh={name: int(size) for name, size in program.mesh.shape.items()},
        batch_size=config.batch_size,
        repeats=config.data.repeats,
        accum_steps=config.accum_steps,
        remat=config.model.remat,
        dtype=config.model.dtype,
        examples=examples,
        steps=program.total_steps,
        memory=memory,
        available=available,
        peak_memory=compiled.memory.get("peak") if compiled else None,
        too_large=compiled.too_large if compiled else "",
        model_flops=model[0],
        eight_bit=config.teacher.dtype if model[1] else "",
        eight_bit_flops=model[1],
        compiled_flops=counts.flops if counts else None,
        compiled_eight_bit_flops=counts.eight_bit if counts else None,
        traffic=counts.traffic if counts else None,
        sent=_sent(counts.collectives) if counts else (),
        unknown_loops=counts.unknown if counts else 0,
        bounds=_bounds(model, where, (one, eight), counts),
        waited=_waited(where, counts),
        peak=one * where.chips if one else None,
        eight_bit_peak=eight * where.chips if eight else None,
        input_bytes=_bytes(program.batch) // views,
        compiled=compiled is not None,
        kept=compiled.kept if compiled else False,
    )


Peaks = tuple[float, float | None]  # FLOP/s, and those in eight bits; None: nothing is done in these


def _seconds(flops: float, eight_bit: float, peaks: Peaks) -> float:
    """What `flops` take at the peaks, those of them in `eight_bit` at the second."""
    return (flops - eight_bit) / peaks[0] + eight_bit / (peaks[1] or peaks[0])


def _bounds(
    model: tuple[float, float],
    where: Target,
    peaks: tuple[float | None, float | None],
    counts: Counts | None,
) -> dict[str, float]:
    """Seconds of a step on one chip, of each thing by itself; `model`: FLOPs, and those in eight bits."""
    one, eight = peaks
    if where.chip is None or one is None:
        return {}
    if counts is None:
        return {"compute": _seconds(*model, (one, eight)) / where.chips}
    return {
        "compute": _seconds(counts.flops, counts.eight_bit, (one, eight)),
        "memory": counts.traffic / where.chip.bandwidth,
        "interconnect": sum(c.sent for c in counts.collectives) / where.chip.links,
    }


def _waited(where: Target, counts: Counts | None) -> float:
    """Seconds in which a chip sends and does nothing else."""
    if where.chip is None or counts is None:
        return 0.0
    return sum(c.sent for c in counts.collectives if not c.overlapped) / where.chip.links


def _memory(program: Program, compiled: Compiled | None) -> dict[str, int]:
    """Bytes of a chip's part."""
    state = program.state
    known = {
        "parameters": tree_memory(state.params),
        "optimizer": tree_memory((state.opt_state, state.step)),
        "running mean": tree_memory(state.ema),
        "teacher": tree_memory(program.teacher),
        "batch": tree_memory(program.batch),
    }
    if compiled is None or not compiled.memory:
        return known
    m = compiled.memory
    # Tiles of a layout are filled up; what the compiler found nobody reads is not even passed.
    return known | {
        "padding": m["arguments"] - sum(known.values()),
        "new outputs": m["outputs"] - m["aliased"],
        "temporaries": m["temporaries"],
        "program": m["code"],
    }


def _sent(collectives: tuple[Collective, ...]) -> tuple[Sent, ...]:
    """Added up by kind, type, group, loop and overlap; those that send most come first."""
    sums: dict[tuple[str, str, int, bool, bool], tuple[int, int, float]] = {}
    for c in collectives:
        key = (c.kind, c.dtype, c.group, c.loop, c.overlapped)
        number, size, sent = sums.get(key, (0, 0, 0.0))
        sums[key] = (number + c.times, size + c.bytes * c.times, sent + c.sent)
    rows = (Sent(*key, number, size, sent) for key, (number, size, sent) in sums.items())
    return tuple(sorted(rows, key=lambda row: -row.sent))


def _bytes(tree: Any) -> int:
    """Of whole arrays, over all chips."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
