"""A part of a source, for what does not need all of it."""

import numpy as np

from amd_jax.data.sources import Example, Source


class Subset:
    """The first `examples` of `source` in an order that is shuffled once and always the same."""

    def __init__(self, source: Source, examples: int) -> None:
        self._source = source
        self._indices = np.random.default_rng(0).permutation(len(source))[:examples]

    @property
    def num_classes(self) -> int:
        """Classes of the whole source."""
        return self._source.num_classes

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._indices[index])]

    def describe(self, index: int) -> str:
        """Name of the example in the source."""
        return self._source.describe(int(self._indices[index]))
