"""Weights on their way out, and what a format makes of them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amd_jax.convert.account import Row
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.kinds import Found
from amd_jax.convert.network import Network

Write = Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
      found: the weights.
      network: what of them the format has a place for.
      said: what is known of pixels and classes, made to fit the network.
      output: of a program: what it computes; empty: logits, or the embedding where there are no classes.
      rows: the account, to which the format adds.
    """

    found: Found
    network: Network
    said: Stated
    output: str = ""
    rows: list[Row] = dataclasses.field(default_factory=list)

    def saying(self, said: Stated) -> "Subject":
        """The same, of which so much is known."""
        return dataclasses.replace(self, said=said)

    def note(self, text: str) -> None:
        """Adds a remark to the account."""
        self.rows.append(Row("note", "", "", (), text))

    def note_described(self) -> None:
        """What the files beside the weights cannot say, or only as a guess."""
        if self.network.assumed:
            self.note(f"config.json holds guesses of the import: {', '.join(self.network.assumed)}")
        if not self.said.mean:
            self.note("mean and std of the pixels are not known, so they are left out")


@dataclasses.dataclass(frozen=True)
class Contents:
    """What is written.

    Attributes:
      files: name to what writes it; first the one that holds the weights or the program.
      library: what opens the files, as the Hugging Face hub calls it; empty: nothing that has a name there.
      code: Python that opens them, run in their folder.
    """

    files: dict[str, Write]
    library: str = ""
    code: str = ""


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      cut: what of a network it has a place for; raises WeightsError where it has none.
      contents: the files; raises WeightsError where they cannot be.
      program: whether it computes one chosen output.
    """

    cut: Callable[[Network], Network]
    contents: Callable[[Subject], Contents]
    program: bool = False


def text(content: str) -> Write:
    """Writes a text."""
    return lambda path: path.write_text(content, encoding="utf-8")


def as_json(content: dict[str, Any]) -> Write:
    """Writes JSON."""
    return text(json.dumps(content, indent=2) + "\n")
