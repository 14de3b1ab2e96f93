"""What became of every weight, as lines for people."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One weight (or one of every layer): theirs, ours, and what happened.

    Attributes:
      status: "used", "dropped", "new", "regenerated", "interpolated", "changed"; or "note".
      note: the reason; empty if there is nothing to say.
    """

    status: str
    theirs: str
    ours: str
    shape: Shape = ()
    note: str = ""

    def __str__(self) -> str:
        if self.status == "note":
            return f"note         {self.note}"
        names = " -> ".join(name for name in (self.theirs, self.ours) if name)
        shape = f"  {list(self.shape)}" if self.shape else ""
        return f"{self.status:<12} {names}{shape}{f'  ({self.note})' if self.note else ''}"


def summary(rows: Iterable[Row]) -> str:
    """How many rows of each status."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    return ", ".join(f"{n} {status}" for status, n in counts.items())


def condense(names: Sequence[str], limit: int = 12) -> str:
    """A readable list of names: layer numbers are folded, and a long list ends in a count."""
    folded: dict[str, list[int]] = {}
    for name in sorted(names):
        match = re.search(r"\.(\d+)\.", name)
        key = name if match is None else f"{name[: match.start()]}.{{}}.{name[match.end() :]}"
        folded.setdefault(key, []).append(int(match[1]) if match else 0)
    out = []
    for key, numbers in folded.items():
        low, high = min(numbers), max(numbers)
        span = str(low) if low == high else f"{{{low}-{high}}}"
        out.append(key.replace("{}", span) if "{}" in key else key)
    rest = len(out) - limit
    return ", ".join(out[:limit]) + (f" and {rest} more" if rest > 0 else "")
