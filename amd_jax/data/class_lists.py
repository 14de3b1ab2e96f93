"""What the labels of a manifest mean: numbers from 0, or names, which may stand in a list of their own."""

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from amd_jax.errors import DataError

CLASSES_FILE = "classes.txt"


def read_classes(file: str) -> tuple[str, ...]:
    """Class names, one a line in the order of the labels; lines may be numbered from 0 or 1, as in UCF101.

    Raises:
      DataError: it cannot be read, or a name is there twice.
    """
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape") as opened:
            names = [line.strip() for line in opened if line.strip()]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); it must list the classes") from error
    numbered = [re.fullmatch(r"([0-9]+)[ ,\t]+(.+)", name) for name in names]
    numbers = [int(match[1]) for match in numbered if match]
    if names and numbers in ([*range(len(names))], [*range(1, len(names) + 1)]):
        names = [match[2] for match in numbered if match]
    twice = (
        next((name for name in names if names.count(name) > 1), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None or not names:
        raise DataError(
            f"{file}: " + (f"class {twice!r} is there twice" if names else "no class names in it")
        )
    return tuple(names)


def classes_beside(*folders: str) -> tuple[str, ...]:
    """The names in the first `classes.txt` of `folders`; empty where there is none."""
    for folder in folders:
        if os.path.isfile(file := os.path.join(folder, CLASSES_FILE)):
            return read_classes(file)
    return ()


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether labels count from 0 instead of being names."""
    return all(re.fullmatch(r"[0-9]{1,9}", label) for label in labels)


def classes_of(labels: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Names and number of the classes that `labels` of a training set make up: names are sorted."""
    if are_numbers(labels):
        return (), max(map(int, labels), default=-1) + 1
    names = tuple(sorted(set(labels)))
    return names, len(names)


def label_numbers(labels: Sequence[str], names: Sequence[str], num_classes: int) -> np.ndarray:
    """int32 [N]: labels by number; -1 where there is no such class."""
    if names and not are_numbers(labels):
        number = {name: i for i, name in enumerate(names)}
        return np.array([number.get(label, -1) for label in labels], np.int32)
    found = [int(label) if re.fullmatch(r"[0-9]{1,9}", label) else -1 for label in labels]
    return np.array([label if label < num_classes else -1 for label in found], np.int32)
