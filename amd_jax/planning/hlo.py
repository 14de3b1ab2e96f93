"""The text of a compiled program (XLA's optimised HLO) as computations of operations with shapes."""

import dataclasses
import math
import re
from collections.abc import Iterator

# Bits of an element, by the name that HLO gives its type.
_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"([a-z]+[0-9]*[a-z0-9]*)\[([0-9,<=]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_NAME = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(r"(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """Type and shape of an array.

    `near` says that it lies in a TPU core's own memory (memory space 1 and up) and costs no HBM traffic.
    """

    dtype: str
    dims: tuple[int, ...]
    near: bool = False

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without what a layout adds."""
        return self.size * bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Op:
    """One instruction.

    Attributes:
      name: of its result.
      opcode: what it does.
      results: the arrays it makes.
      operands: names of what it reads.
      inside: what stands in its parentheses: a constant's value, a parameter's number.
      rest: of its line.
      root: whether its result is that of its computation.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    inside: str
    rest: str
    root: bool

    def called(self, *kinds: str) -> list[str]:
        """The computations that this one runs, by kind ("calls", "body", …), any kind without one."""
        found = [name for kind, name in _CALLED.findall(self.rest) if not kinds or kind in kinds]
        branches = _BRANCHES.search(self.rest)
        if branches and (not kinds or "branch_computations" in kinds):
            found += [name.strip().lstrip("%") for name in branches[1].split(",")]
        return found

    @property
    def bytes(self) -> int:
        """Of all that it makes."""
        return sum(array.bytes for array in self.results)


Computation = dict[str, Op]


@dataclasses.dataclass(frozen=True)
class Module:
    """All computations by name, and which one is run."""

    computations: dict[str, Computation]
    entry: str


def bits(dtype: str) -> int:
    """Of one element: bf16 16, f8e4m3fn 8, s4 4, pred 8."""
    if dtype in _BITS:
        return _BITS[dtype]
    number = re.search(r"\d+", dtype)
    return int(number[0]) if number else 0


def parse(text: str) -> Module:
    """Reads `jax.stages.Compiled.as_text()`.

    Raises:
      ValueError: there is no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line[:1].isspace():
            if current is not None and (op := _op(line)) is not None:
                current[op.name] = op
        elif (header := _HEADER.match(line)) and not line.startswith("HloModule"):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
    if not entry:
        raise ValueError("no entry computation in this HLO text")
    return Module(computations, entry)


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape's text, those of a tuple one after the other."""
    return tuple(
        Array(dtype, _dims(dims), bool(re.search(r"S\([1-9]", layout or "")))
        for dtype, dims, layout in _ARRAY.findall(shape)
    )


def operands_of(op: Op, computation: Computation) -> tuple[Array, ...]:
    """The arrays that an operation reads; nothing of a name that is not in its computation."""
    return tuple(a for name in op.operands if name in computation for a in computation[name].results)


def root(computation: Computation) -> Op:
    """The operation whose result is the computation's."""
    return next(op for op in computation.values() if op.root)


def _op(line: str) -> Op | None:
    name = _NAME.match(line)
    if name is None:
        return None
    start = name.end()
    end = _closing(line, start) if line[start] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, end)
    if opcode is None:
        return None
    close = _closing(line, opcode.end() - 1)
    inside = line[opcode.end() : close - 1]
    return Op(
        name=name[2],
        opcode=opcode[1],
        results=arrays(line[start:end]),
        operands=tuple(_operands(inside)) if opcode[1] not in ("constant", "parameter") else (),
        inside=inside,
        rest=line[close:],
        root=bool(name[1]),
    )


def _operands(inside: str) -> Iterator[str]:
    """Names, each of which may follow its shape; without a % the whole entry is the name."""
    if "%" in inside:
        yield from re.findall(r"%([\w.\-]+)", inside)
    else:
        yield from (word.split()[-1] for word in re.sub(r"/\*.*?\*/", "", inside).split(",") if word.split())


def _closing(line: str, start: int) -> int:
    """One past the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[i], 0)
        if depth == 0:
            return i + 1
    return len(line)


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(size.removeprefix("<=")) for size in text.split(",") if size)
