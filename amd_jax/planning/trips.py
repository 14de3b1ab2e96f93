"""How often a loop of a compiled program turns."""

import re

from amd_jax.planning import hlo
from amd_jax.planning.hlo import Computation, Op

_SAME = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "optimization-barrier")


def trips(op: Op, computation: Computation, computations: dict[str, Computation]) -> int | None:
    """Turns of the loop `op`; None where the text does not say.

    Some compilers write it down. A TPU's does not, but its loops count: they start at a constant, a constant
    is added in each turn, and they end at a constant.
    """
    if known := re.search(r"known_trip_count\D*(\d+)", op.rest):
        return int(known[1])
    (condition,), (body,) = op.called("condition"), op.called("body")
    test = _compared(computations[condition], computations)
    if test is None:
        return None
    index, direction, limit = test
    start = _constant(_element(op.operands[0], index, computation), computation)
    step = _increment(computations[body], index, computations)
    if start is None or not step:
        return None
    return _turns(start, limit, step, direction)


def _turns(start: int, limit: int, step: int, direction: str) -> int | None:
    """Of `for (i = start; i DIRECTION limit; i += step)`."""
    end = {"LT": limit, "NE": limit, "LE": limit + 1, "GT": limit, "GE": limit - 1}.get(direction)
    rising = direction in ("LT", "LE") or (direction == "NE" and step > 0)
    if end is None or rising != (step > 0):
        return None
    return max(0, -(-(end - start) // step))


def _compared(condition: Computation, computations: dict[str, Computation]) -> tuple[int, str, int] | None:
    """Which element of the loop's tuple is compared, how, and with what."""
    test = hlo.root(condition)
    inputs = list(test.operands)
    inner = condition
    if test.opcode == "fusion":
        inner = computations[test.called("calls")[0]]
        test = hlo.root(inner)
    direction = re.search(r"direction=(\w+)", test.rest)
    if test.opcode != "compare" or direction is None:
        return None
    left, right = (_outside(name, inner, condition, inputs) for name in test.operands)
    counter, limit = left[0], _constant(*right)
    if counter not in left[1] or limit is None:
        return None
    op = left[1][counter]
    index = re.search(r"index=(\d+)", op.rest) if op.opcode == "get-tuple-element" else None
    return (int(index[1]), direction[1], limit) if index else None


def _outside(name: str, inner: Computation, outer: Computation, inputs: list[str]) -> tuple[str, Computation]:
    """Where a name of a fused computation comes from: a parameter is what the fusion is given."""
    name = _origin(name, inner)
    op = inner[name]
    if inner is not outer and op.opcode == "parameter":
        return _origin(inputs[int(op.inside)], outer), outer
    return name, inner


def _origin(name: str, computation: Computation) -> str:
    """The name behind copies of it."""
    while name in computation and computation[name].opcode in _SAME:
        name = computation[name].operands[0]
    return name


def _element(name: str, index: int, computation: Computation) -> str | None:
    """The name of an element of a tuple."""
    op = computation.get(_origin(name, computation))
    return op.operands[index] if op is not None and op.opcode == "tuple" else None


def _constant(name: str | None, computation: Computation) -> int | None:
    """The value of an integer constant."""
    if name is None:
        return None
    op = computation.get(_origin(name, computation))
    if op is None or op.opcode != "constant" or not re.fullmatch(r"-?\d+", op.inside):
        return None
    return int(op.inside)


def _increment(body: Computation, index: int, computations: dict[str, Computation]) -> int | None:
    """What a turn adds to the element `index` of the loop's tuple."""
    name = _element(hlo.root(body).name, index, body)
    op = body.get(_origin(name, body)) if name else None
    if op is None:
        return None
    inner, inputs = body, list(op.operands)
    if op.opcode == "fusion":
        inner = computations[op.called("calls")[0]]
        op = hlo.root(inner)
    if op.opcode != "add":
        return None
    values = (_constant(*_outside(operand, inner, body, inputs)) for operand in op.operands)
    return next((value for value in values if value is not None), None)
