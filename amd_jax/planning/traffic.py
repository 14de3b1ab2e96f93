"""Bytes that a compiled program moves between a chip and its memory, read off the shapes of its operations.

An estimate: every operation of the schedule reads what it is given and writes what it makes, once. What lies
in the chip's own fast memory costs nothing, and of an array that is only cut into or written into, the cut
counts.
"""

from collections.abc import Iterable

from amd_jax.planning import hlo
from amd_jax.planning.hlo import Array, Computation, Op

# They move nothing, or what they move is counted where it began.
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "opt-barrier",
    "domain",
}
_CUTS = ("dynamic-slice", "slice", "gather")


def traffic(op: Op, computation: Computation) -> float:
    """Bytes that an operation reads and writes; none of calls, whose computations are counted themselves."""
    if op.opcode in _FREE or op.opcode.endswith(("-done", "-update")) or "AllocateBuffer" in op.rest:
        return 0.0
    if op.opcode in (
        "copy-start",
        "slice-start",
    ):  # the pair of source and target, in this order and the other
        source, target = op.results[1::-1] if op.opcode == "copy-start" else op.results[:2]
        return float(target.bytes * ((not source.near) + (not target.near)))
    if op.opcode in _CUTS:
        return 2 * _far(op.results)
    if op.opcode == "dynamic-update-slice":
        return 2 * _far(computation[op.operands[1]].results)
    results = op.results[:1] if op.opcode.endswith("-start") else op.results
    return _far(hlo.operands_of(op, computation)) + _far(results)


def fusion_traffic(op: Op, computation: Computation, computations: dict[str, Computation]) -> float:
    """Bytes that a fusion reads and writes."""
    inside = computations[op.called("calls")[0]]
    read = 0.0
    for number, operand in enumerate(op.operands):
        arrays = computation[operand].results if operand in computation else ()
        if _far(arrays):
            read += min(_far(arrays), _read(_parameter(inside, number), inside, computations))
    made = hlo.root(inside)
    names = made.operands if made.opcode == "tuple" else (made.name,)
    written = sum(
        min(_far((array,)), _written(name, inside, computations))
        for name, array in zip(names, op.results, strict=False)
    )
    return read + written


def _parameter(inside: Computation, number: int) -> str:
    return next(op.name for op in inside.values() if op.opcode == "parameter" and int(op.inside) == number)


def _far(arrays: Iterable[Array]) -> float:
    return float(sum(array.bytes for array in arrays if not array.near))


def _read(name: str, inside: Computation, computations: dict[str, Computation]) -> float:
    """Bytes that are read of a fusion's parameter, at most all of it."""
    whole, total = float(inside[name].bytes), 0.0
    for user in (op for op in inside.values() if name in op.operands):
        if user.opcode == "bitcast" or _tiled(user, computations):
            total += _read(user.name, inside, computations)
        elif user.opcode == "fusion":  # fusions may lie in fusions
            nested = computations[user.called("calls")[0]]
            given = _parameter(nested, user.operands.index(name))
            total += _read(given, nested, computations)
        elif user.opcode in _CUTS and user.operands[0] == name:
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            total += 0.0  # written in place
        elif user.opcode not in ("custom-call", "tuple", "all-gather"):
            return whole
    return min(total, whole)


def _tiled(user: Op, computations: dict[str, Computation]) -> bool:
    """Whether a fusion in a fusion hands on what it is given in other tiles: a TPU's products want that."""
    if user.opcode != "fusion" or "output_to_operand_aliasing" not in user.rest:
        return False
    nested = computations[user.called("calls")[0]]
    made = hlo.root(nested)
    return made.opcode == "copy" and nested[made.operands[0]].opcode == "parameter"


def _written(name: str, inside: Computation, computations: dict[str, Computation]) -> float:
    """Bytes that are written of a fusion's result, at most all of it; nothing of what only passes through."""
    op = inside[name]
    while op.opcode == "bitcast" and op.operands[0] in inside:
        op = inside[op.operands[0]]
    if op.opcode == "dynamic-update-slice":
        return float(inside[op.operands[1]].bytes)
    if op.opcode == "fusion" and len(op.results) == 1:
        nested = computations[op.called("calls")[0]]
        return _written(hlo.root(nested).name, nested, computations)
    return 0.0 if op.opcode in ("parameter", "custom-call", "get-tuple-element") else float(op.bytes)
