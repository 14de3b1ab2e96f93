"""What was measured of a program: its numbers, what follows from them, and a page of text."""

import dataclasses
from typing import Any

from amd_jax.measuring.running import Start
from amd_jax.measuring.windows import Spread
from amd_jax.planning.printed import gib, ms, table

SLOWER = 1.1  # a loop that takes so many times what its slowest part takes alone is held up otherwise


@dataclasses.dataclass(frozen=True)
class Feeding:
    """What the input does.

    Attributes:
      first: seconds to the first batch.
      alone: seconds of a batch with nothing else going on.
      loop: seconds of a step over real batches.
      waited: of these, seconds in which the step waited for its batch.
      cores: that this process may use.
    """

    first: float
    alone: Spread
    loop: Spread
    waited: float
    cores: int


@dataclasses.dataclass(frozen=True)
class Findings:
    """The numbers of one program.

    Attributes:
      config: its file, and the keys that were changed.
      devices: how many, of which kind; `mesh` by axis.
      views: examples that the networks see in a step, `batch_size` × `data.repeats`.
      dtype, attention, remat, accum_steps: as resolved for these devices.
      flops: of a step by the model, over all devices.
      ceiling: FLOP/s that these devices reached in matrix products; `peak`: what the vendor says of them.
      cold, warm: to the first step, with nothing compiled before and with what was compiled then; None where
        that was not asked, and `start` is with what happened to be kept.
      step: seconds of a step over one batch that lies on the devices.
      memory: bytes a device, by the compiler; `needed` is their sum as a run checks it.
      available: bytes of a device; `device_peak`: most that it has held, where it tells; `host_peak`: most
        that this process has held.
      feeding: the input; None where it was not asked for.
    """

    config: str
    devices: int
    kind: str
    platform: str
    mesh: dict[str, int]
    batch_size: int
    views: int
    dtype: str
    attention: str
    remat: bool
    accum_steps: int
    flops: float
    ceiling: float
    peak: float | None
    start: Start
    cold: Start | None
    step: Spread
    memory: dict[str, int]
    needed: int | None
    available: int | None
    device_peak: int | None
    host_peak: int
    feeding: Feeding | None

    @property
    def examples_per_second(self) -> float:
        """Views count by themselves, as they do in the batch."""
        return self.views / self.step.median

    @property
    def of_ceiling(self) -> float:
        """Model FLOPs utilisation of what was measured, a fraction."""
        return self.flops / self.step.median / self.ceiling

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation of the vendor's figure; None: it is not known."""
        return self.flops / self.step.median / self.peak if self.peak else None

    @property
    def bound(self) -> str:
        """What a run would wait for: "step", "input", or "both" where they slow each other down; ""."""
        if self.feeding is None:
            return ""
        slowest = max(self.step.median, self.feeding.alone.median)
        if self.feeding.loop.median > SLOWER * slowest:
            return "both"
        return "input" if self.feeding.alone.median > self.step.median else "step"


def figures(found: Findings) -> dict[str, Any]:
    """All numbers, also those that follow from others, for a file."""
    follow = ("examples_per_second", "of_ceiling", "mfu", "bound")
    return dataclasses.asdict(found) | {name: getattr(found, name) for name in follow}


def page(f: Findings) -> str:
    """Everything that was measured."""
    parts = (_head(f), _starts(f), _step(f), _memory(f), _feeding(f))
    return "\n\n".join(part for part in parts if part) + "\n"


def ratio(of: Spread, one: Findings, other: Findings) -> str:
    """How long the other program's step takes, over the first one's, by windows that took turns."""
    text = f"{other.config}\n  takes {_spread(of, '{:.4f}')} times as long a step as\n{one.config}"
    if other.views != one.views:
        each = of.median * one.views / other.views
        text += f"\n  and {each:.4f} times as long an example: {other.views} a step, not {one.views}."
    return text + "\n"


def _head(f: Findings) -> str:
    mesh = ", ".join(f"{axis}={size}" for axis, size in f.mesh.items())
    return (
        f"{f.config}\non {f.devices} {f.kind} ({f.platform}; {mesh}): {f.views} views a step in "
        f"{f.accum_steps} pass{'es' if f.accum_steps > 1 else ''}, {f.dtype}, attention {f.attention}, "
        f"{'with' if f.remat else 'without'} remat, {f.flops / 1e9:,.1f} GFLOP a step"
    )


def _starts(f: Findings) -> str:
    named = [("cold", f.cold), ("warm", f.start)] if f.cold else [("as kept", f.start)]
    rows = [
        (name, *(f"{s:.2f}" for s in (x.lowering, x.compiling, x.weights, x.step, x.total)))
        for name, x in named
        if x
    ]
    head = ("compilation cache", "lowering", "compiling", "weights", "step", "total")
    return "Seconds to the end of the first step\n" + table(head, rows)


def _step(f: Findings) -> str:
    rows = [("median", _spread(f.step)), ("examples a second", f"{f.examples_per_second:,.1f}")]
    rows.append(("model FLOPs", rate(f.flops / f.step.median)))
    rows.append(("of matrix products here", f"{f.of_ceiling:.1%} of {rate(f.ceiling)}"))
    if f.mfu is not None and f.peak:
        rows.append(("of the data sheet", f"{f.mfu:.1%} of {rate(f.peak)}"))
    return _list("A step over one batch", rows)


def _memory(f: Findings) -> str:
    rows = [(f"{name}, by the compiler", gib(size)) for name, size in f.memory.items() if size]
    known = {"needed for a step": f.needed, "a device has": f.available, "a device held": f.device_peak}
    rows += [(name, gib(size)) for name, size in known.items() if size is not None]
    return _list("Memory of a device", [*rows, ("this process held", gib(f.host_peak))])


def _feeding(f: Findings) -> str:
    x = f.feeding
    if x is None:
        return ""
    rate = f.views / x.alone.median
    rows = [
        ("first batch", duration(x.first)),
        ("a batch, alone", _spread(x.alone)),
        ("examples a second", f"{rate:,.1f}, {rate / x.cores:,.1f} a core of {x.cores}"),
        ("a step over real batches", _spread(x.loop)),
        ("of which it waits", duration(x.waited)),
    ]
    verdict = {
        "step": "The step bounds a run: the input is faster.",
        "input": "The input bounds a run: steps are faster.",
        "both": "Input and step slow each other down: together they take longer than the slower one alone.",
    }
    return f"{_list('Input', rows)}\n{verdict[f.bound]}"


def _list(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join([title, *(f"  {name:<{width}}{value}" for name, value in rows)])


def duration(seconds: float) -> str:
    """As 12.34 s or 12.34 ms."""
    return f"{seconds:.2f} s" if seconds >= 1 else ms(seconds)


def rate(flops: float) -> str:
    """FLOP/s with a unit of its size."""
    return f"{flops / 1e12:,.1f} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:,.1f} GFLOP/s"


def _spread(s: Spread, form: str = "") -> str:
    def show(x: float) -> str:
        return form.format(x) if form else duration(x)

    return (
        f"{show(s.median)} (quartiles {show(s.quarter)} to {show(s.three_quarters)}, all {show(s.least)} to "
        f"{show(s.most)}, {s.windows} windows)"
    )
