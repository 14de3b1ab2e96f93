"""A part of a source, for what does not need all of it; the same part every time."""

import contextlib
from collections.abc import Sequence

import numpy as np

from amd_jax.data.example import Example, Source
from amd_jax.errors import DataError


class Subset:
    """The examples of `source` at `indices`."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self._source = source
        self._indices = np.asarray(indices)

    @property
    def num_classes(self) -> int:
        """Classes of the whole source."""
        return self._source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their names."""
        return self._source.class_names

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._indices[index])]

    @property
    def labels(self) -> np.ndarray:
        """Those of its examples, where the source knows its own; else AttributeError."""
        return np.asarray(self._source.labels)[self._indices]  # type: ignore[attr-defined]

    def label(self, index: int) -> int:
        """Label of the example, as the source knows it."""
        return self._source.label(int(self._indices[index]))

    def describe(self, index: int) -> str:
        """Name of the example in the source."""
        return self._source.describe(int(self._indices[index]))


def shuffled_part(source: Source, examples: int) -> Subset:
    """The first `examples` of `source` in a shuffled order."""
    return Subset(source, _order(source)[:examples])


def balanced_part(source: Source, share: float) -> Subset:
    """A share of `source` with equally many examples of each class, as few-label results are reported on.

    Walks the shuffled order until all classes are full. A class that has fewer examples than that gives what
    it has, after all were asked; a larger share of the same source holds the smaller one.

    A source that knows its labels is not read at all: what of the part cannot be read is left to whoever
    reads it, who counts it as any other. Of one that has to read them, such as TFDS's, little more is read
    than is taken where the set is balanced, and the next of its class stands in for what cannot be read.

    Where there are no classes it is a share of all.

    Raises:
      DataError: the share is less than one example of each class, or nothing can be read.
    """
    if not source.num_classes:
        return shuffled_part(source, max(1, round(share * len(source))))
    quota = round(share * len(source) / source.num_classes)
    if quota < 1:
        raise DataError(
            f"data.share={share}: less than one of {len(source)} examples for each of {source.num_classes} "
            "classes; raise it"
        )
    taken, missing = [], [quota] * source.num_classes
    for index in map(int, _order(source)):
        with contextlib.suppress(OSError):  # the label had to be read: the next of its class is taken
            label = source.label(index)
            if missing[label]:
                missing[label] -= 1
                taken.append(index)
        if not any(missing):
            break
    if not taken:
        raise DataError(f"data.share={share}: none of {len(source)} examples can be read; is the disk there?")
    return Subset(source, taken)


def held_out(source: Source, share: float) -> tuple[Subset, Subset]:
    """`source` without a share of it, and that share: disjoint, together all of it, each in its order.

    The same share of each class is taken, to the nearest example, so that together they are the share of the
    whole, but the last example of a class stays. Where a source does not know its labels, as TFDS's does not,
    the share is of all alike: reading a million records for it would take minutes.

    Raises:
      DataError: none would be held out.
    """
    order = _order(source)
    labels = np.asarray(getattr(source, "labels", np.zeros(len(source), np.int32)))[order]
    counts = np.bincount(labels, minlength=1)
    by_class = np.argsort(labels, kind="stable")  # of each class, those first that come first in the order
    rank = np.empty(len(order), np.int64)
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Classes of 4 give none or one of a tenth: which of them give one, so that it is a tenth together, is
    # what the running sum of their shares says.
    sums = np.floor(np.cumsum(counts * share) + 0.5).astype(int)
    quota = np.minimum(np.diff(sums, prepend=0), counts - 1)
    held = np.zeros(len(order), bool)
    held[order] = rank < quota[labels]
    if not held.any():
        raise DataError(f"data.holdout={share}: none of {len(source)} examples would be held out; raise it")
    return Subset(source, np.flatnonzero(~held)), Subset(source, np.flatnonzero(held))


def _order(source: Source) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(source))
