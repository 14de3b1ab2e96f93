"""Decoded examples of a source; those that cannot be read are replaced or left out, counted and named."""

import dataclasses

import numpy as np
from absl import logging

from amd_jax.config import ConfigError
from amd_jax.data import transforms
from amd_jax.data.example import Source

# So many unreadable neighbours are not a few bad files but a broken disk or a wrong directory.
MAX_CONSECUTIVE_UNREADABLE = 50

Failures = list[tuple[int, str]]  # the index of an example that could not be read, and why


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads and decodes; picklable where its source is."""

    source: Source
    channels: int  # 1 or 3

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """The image at `index`, uint8 [H, W, channels], and its label; raises OSError if unreadable."""
        example = self.source[index]
        assert isinstance(example.content, bytes | np.ndarray)
        return transforms.decode(example.content, self.channels), example.label

    def read_or_next(self, index: int, failures: Failures) -> tuple[np.ndarray, int]:
        """As `read`, or of the next example that can be read; those that cannot are added to `failures`.

        Raises:
          ConfigError: too many in a row cannot be read.
        """
        for attempt in range(MAX_CONSECUTIVE_UNREADABLE):
            candidate = (index + attempt) % len(self.source)
            try:
                return self.read(candidate)
            except OSError as error:
                failures.append((candidate, str(error)))
        raise ConfigError(
            f"{MAX_CONSECUTIVE_UNREADABLE} unreadable images in a row, from"
            f" {self.source.describe(index)}; look at the data: is the disk there and the copy complete?"
        )


class Unreadable:
    """Keeps count of unreadable examples, names each once in the log, and stops at the limit."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def report(self, failures: Failures) -> None:
        """Take note of failures; raises ConfigError when more than the limit are unreadable."""
        for index, reason in failures:
            if index in self._seen:
                continue
            self._seen.add(index)
            name = self._source.describe(index)
            logging.warning("unreadable image %d: %s (%s)", len(self._seen), name, reason)
            if len(self._seen) > self._limit:
                raise ConfigError(
                    f"{len(self._seen)} unreadable images, the last {name}; data.max_corrupt="
                    f"{self._limit} allows no more: repair the data or raise it"
                )
