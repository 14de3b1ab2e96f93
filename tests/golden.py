"""Texts that are recorded, so that a change of them shows in a diff."""

import os
from collections.abc import Iterable
from pathlib import Path


def check(path: Path, lines: Iterable[str]) -> None:
    """Compares with the file; with UPDATE_GOLDEN=1 writes it first."""
    actual = "\n".join([*lines, ""])
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(actual)
    assert actual == path.read_text(), "if the change is meant: UPDATE_GOLDEN=1, and read the diff"
