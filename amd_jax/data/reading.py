"""Decoded examples of a source; those that cannot be read are replaced or left out, counted and named."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from absl import logging

from amd_jax.data import transforms
from amd_jax.data.example import Source
from amd_jax.data.sampling import Sampler
from amd_jax.data.video import open_video
from amd_jax.errors import DataError

# So many unreadable neighbours are not a few bad files but a broken disk or a wrong directory.
MAX_CONSECUTIVE_UNREADABLE = 50

_FRAMES = 2**31  # the draw of frames: its key is of no view

Failures = list[tuple[int, str]]  # the index of an example that could not be read, and why


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads and decodes an image, or the frames of a video that `sampler` wants."""

    source: Source
    channels: int  # 1 or 3
    sampler: Sampler
    # Of a key, height and width, the part of these that is enough; None: images are decoded whole.
    least_scale: Callable[[tuple[int, ...], int, int], float] | None = None

    def read(self, index: int, key: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """The example at `index`, uint8 [T, H, W, channels], and its label; raises OSError if unreadable.

        Of a video, the frames of all clips one after the other; which are drawn from a generator of `key`.
        An image is one frame.
        """
        content, label = self.source[index]
        if isinstance(content, bytes) or (isinstance(content, np.ndarray) and content.ndim < 4):
            least = functools.partial(self.least_scale, key) if self.least_scale else None
            return transforms.decode(content, self.channels, least)[None], label
        with open_video(content) as video:
            wanted = self.sampler(video.count, np.random.default_rng((*key, _FRAMES)))
            return video.read(wanted.ravel(), self.channels), label

    def read_or_next(self, index: int, key: tuple[int, ...], failures: Failures) -> tuple[np.ndarray, int]:
        """As `read`, or of the next example that can be read; those that cannot are added to `failures`.

        Raises:
          DataError: too many in a row cannot be read.
        """
        for attempt in range(MAX_CONSECUTIVE_UNREADABLE):
            candidate = (index + attempt) % len(self.source)
            try:
                return self.read(candidate, key)
            except OSError as error:
                failures.append((candidate, str(error)))
        raise DataError(
            f"{MAX_CONSECUTIVE_UNREADABLE} unreadable examples in a row, from"
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
        """Take note of failures; raises DataError when more than the limit are unreadable."""
        for index, reason in failures:
            if index in self._seen:
                continue
            self._seen.add(index)
            name = self._source.describe(index)
            logging.warning("unreadable example %d: %s (%s)", len(self._seen), name, reason)
            if len(self._seen) > self._limit:
                raise DataError(
                    f"{len(self._seen)} unreadable examples, the last {name}; data.max_corrupt="
                    f"{self._limit} allows no more: repair the data or raise it"
                )
