"""What one run of a compiled program computes and sends, its loops counted as often as they turn.

XLA's own `cost_analysis` counts the body of a loop once. Here every computation is counted by itself, and
that of a loop's body taken as often as the loop turns.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

import numpy as np

from amd_jax.planning import hlo
from amd_jax.planning.hlo import Computation, Module, Op
from amd_jax.planning.traffic import fusion_traffic, traffic
from amd_jax.planning.trips import trips

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: a name of COLLECTIVES.
      dtype: of its elements, as HLO calls it.
      bytes: of the whole array that a group of chips deals with: what each adds to the sum, has after
        gathering or had before scattering.
      group: chips that take part together.
      times: how often it is done in a step.
      loop: whether it is done in a loop.
      overlapped: whether it has a start and an end, with other work in between.
      channel: what tells it from others; empty where the text does not say.
    """

    kind: str
    dtype: str
    bytes: int
    group: int
    times: int
    loop: bool
    overlapped: bool
    channel: str = ""

    @property
    def sent(self) -> float:
        """Bytes that each chip has to send in a step; those of a ring, which no algorithm undercuts."""
        if self.kind in ("collective-permute", "collective-broadcast"):
            return float(self.bytes * self.times)
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * (self.group - 1) / self.group * self.bytes * self.times


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a computation does when it runs once, on one chip.

    Attributes:
      flops: of matrix products and convolutions, two per multiply-add; nothing else is counted.
      eight_bit: those of `flops` whose factors have eight bits.
      traffic: bytes read from and written to the chip's memory, if each operation fetches what it reads and
        stores what it makes.
      collectives: in the order of the text.
      unknown: loops of which nobody knows how often they turn, counted once.
    """

    flops: float = 0.0
    traffic: float = 0.0
    collectives: tuple[Collective, ...] = ()
    unknown: int = 0
    eight_bit: float = 0.0


def count(text: str) -> Counts:
    """Counts a compiled program, `jax.stages.Compiled.as_text()`; of several chips' programs, that of one."""
    module = hlo.parse(text)
    return _Counter(module).counts(module.entry)


class _Counter:
    """Counts the computations of a module, each once."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._done: dict[str, Counts] = {}

    def counts(self, name: str) -> Counts:
        """Of the computation `name` and all that it runs."""
        if name not in self._done:
            computation = self._module.computations[name]
            self._done[name] = _total(self._of_op(op, computation) for op in computation.values())
        return self._done[name]

    def _of_op(self, op: Op, computation: Computation) -> Counts:
        if op.opcode == "while":
            return self._loop(op, computation)
        if op.opcode == "conditional":  # whichever computes most
            return max(map(self.counts, op.called()), key=lambda c: c.flops, default=Counts())
        if op.opcode in ("call", "async-start"):
            inner = _total(map(self.counts, op.called("calls", "to_apply")))
            started = tuple(dataclasses.replace(c, overlapped=True) for c in inner.collectives)
            return dataclasses.replace(inner, collectives=started) if op.opcode == "async-start" else inner
        if op.opcode == "fusion":
            (name,) = op.called("calls")
            inside, inner = self._module.computations[name], self.counts(name)
            found = tuple(_fused(c, name, inside) for c in inner.collectives)
            moved = fusion_traffic(op, computation, self._module.computations)
            return dataclasses.replace(inner, traffic=moved, collectives=found)
        kind = op.opcode.removesuffix("-start")
        found = (_collective(op, kind, computation),) if kind in COLLECTIVES else ()
        flops = _flops(op, computation)
        eight_bit = flops if flops and _in_eight_bits(op, computation) else 0.0
        return Counts(flops, traffic(op, computation), found, eight_bit=eight_bit)

    def _loop(self, op: Op, computation: Computation) -> Counts:
        (body,) = op.called("body")
        turns = trips(op, computation, self._module.computations)
        inner, times = self.counts(body), turns or 1
        again = (dataclasses.replace(c, times=c.times * times, loop=True) for c in inner.collectives)
        unknown = inner.unknown + (turns is None)
        return Counts(
            inner.flops * times, inner.traffic * times, tuple(again), unknown, inner.eight_bit * times
        )


def _total(parts: Iterable[Counts]) -> Counts:
    """The sum over the operations of a computation."""
    flops, traffic, unknown, eight_bit = 0.0, 0.0, 0, 0.0
    found: list[Collective] = []
    for part in parts:
        flops, traffic, unknown = flops + part.flops, traffic + part.traffic, unknown + part.unknown
        eight_bit += part.eight_bit
        # A TPU's overlapped collective is cut over several fusions, each of which names the whole of it.
        seen = {c.channel for c in found if c.overlapped and c.channel}
        found += [c for c in part.collectives if not (c.overlapped and c.channel in seen)]
    return Counts(flops, traffic, tuple(found), unknown, eight_bit)


def _fused(collective: Collective, name: str, inside: Computation) -> Collective:
    """A collective in a fusion: part of one that is overlapped, or the sum in a reduce-scatter."""
    begun = any("AsyncCollective" in op.rest for op in inside.values() if op.opcode == "custom-call")
    kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else collective.kind
    overlapped = collective.overlapped or begun or "async_collective" in name
    return dataclasses.replace(collective, kind=kind, overlapped=overlapped)


def _collective(op: Op, kind: str, computation: Computation) -> Collective:
    read = hlo.operands_of(op, computation)
    group = _group(op.rest)
    size = sum(array.bytes for array in read) * (group if kind == "all-gather" else 1)
    # One operation may send arrays of several types: what most of its bytes are.
    dtype = max(read, key=lambda array: array.bytes).dtype if read else "?"
    channel = re.search(r"channel_id=(\d+)", op.rest)
    return Collective(
        kind, dtype, size, group, 1, False, op.opcode.endswith("-start"), channel[1] if channel else ""
    )


def _group(rest: str) -> int:
    """How many chips take part together, from any of the ways in which HLO writes groups."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, part in named)
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d, ]*)\}", rest):
        return len(listed[1].split(","))
    return 1


def _flops(op: Op, computation: Computation) -> float:
    """Two for each multiply-add of a matrix product or convolution."""
    if op.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = hlo.operands_of(op, computation)[:2]
    if op.opcode == "dot":
        summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.rest)
        over = [int(d) for d in summed[1].split(",") if d] if summed else []
        return 2.0 * op.results[0].size * math.prod(left.dims[d] for d in over)
    return 2.0 * _convolved(op, left.dims, right.dims)


def _in_eight_bits(op: Op, computation: Computation) -> bool:
    """Whether both factors of a product are."""
    factors = hlo.operands_of(op, computation)[:2]
    return all(array.dtype in ("s8", "u8") or array.dtype.startswith("f8") for array in factors)


def _convolved(op: Op, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Multiply-adds of a convolution, padding and the holes of dilation left out.

    A TPU computes all matrix products as convolutions, batches of them as dilated ones whose holes nobody
    computes. Counted as XLA's HloCostAnalysis::HandleConvolution does.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.rest)
    if labels is None:
        return 0.0
    of_left, of_right, of_out = labels.groups()
    batch, features = left[of_left.index("b")], right[of_right.index("o")]
    groups = re.search(r"batch_group_count=(\d+)", op.rest)
    total = batch * features * right[of_right.index("i")] / (int(groups[1]) if groups else 1)
    for d in (label for label in of_out if label.isdigit()):
        at = int(d)
        total *= _positions(
            left[of_left.index(d)],
            right[of_right.index(d)],
            op.results[0].dims[of_out.index(d)],
            {
                name: _per_dimension(op.rest, name, at)
                for name in ("stride", "pad", "lhs_dilate", "rhs_dilate")
            },
        )
    return total


def _per_dimension(rest: str, name: str, at: int) -> int:
    """A window's number for the spatial dimension `at`; of padding the one below."""
    window = re.search(r"window=\{([^}]*)\}", rest)
    found = re.search(rf"(?<![a-z_]){name}=([\dx_\-]+)", window[1]) if window else None
    if found is None:
        return 0 if name == "pad" else 1
    return int(found[1].split("x")[at].split("_")[0])


def _positions(left: int, right: int, out: int, window: dict[str, int]) -> int:
    """Pairs of a place of the output and one of the kernel that meet a value of the input."""
    places = np.arange(out)[:, None] * window["stride"] - window["pad"]
    places = places + np.arange(right)[None, :] * window["rhs_dilate"]
    inside = (places >= 0) & (places < (left - 1) * window["lhs_dilate"] + 1)
    return int(np.sum(inside & (places % window["lhs_dilate"] == 0)))
