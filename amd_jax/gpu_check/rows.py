"""What a check found: a row of the table, passed from its process to the one that prints."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OK, DIFFERS, FAILED, SKIPPED, MEASURED = "ok", "DIFFERS", "FAILED", "skipped", "measured"
RESULTS = (OK, DIFFERS, FAILED, SKIPPED, MEASURED)


@dataclasses.dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
      check: which check.
      what: of what.
      result: "ok" or "DIFFERS" where there is a tolerance, "measured" where there is none, "skipped" or
        "FAILED", as where its process died.
      text: the finding in words.
      numbers: the finding for a file.
    """

    check: str
    what: str
    result: str
    text: str
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def bad(self) -> bool:
        """Whether the command ends with 1 because of it."""
        return self.result in (DIFFERS, FAILED)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a check is told.

    Attributes:
      full: the sizes for an accelerator; otherwise those for a CPU, on which a check shows that it runs.
      out: the file that rows are added to.
    """

    full: bool
    out: Path

    def add(self, *row: Any) -> None:
        """Writes down what was found, so that it stays if the process dies over what comes next."""
        with open(self.out, "a") as lines:
            lines.write(json.dumps(dataclasses.asdict(Row(*row))) + "\n")


def read(file: Path) -> list[Row]:
    """The rows that were written so far."""
    return [Row(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:150]


def judged(errors: Iterable[tuple[float, float]]) -> str:
    """Whether every error is within its tolerance; what is not a number is not."""
    return OK if all(error <= tolerance for error, tolerance in errors) else DIFFERS
