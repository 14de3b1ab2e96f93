"""Which example stands at which position of the training stream, and which positions are a process's.

The stream is a sequence of positions 0, 1, 2, …: position g shows the example `shuffled_index(seed, g, N)` of
a source of N, every epoch of N positions being a new permutation. Step s takes positions [s·B, (s+1)·B), and
process p of n their p-th part. So what a step shows depends on neither the run's history nor its processes.
"""

import dataclasses
import functools

import numpy as np
from grain.experimental import index_shuffle


def shuffled_index(seed: int, position: int, length: int) -> tuple[int, int]:
    """(epoch, index of the example) at `position` of the training stream over `length` examples.

    The permutation is computed by the position, not stored: grain's block cipher over [0, length), keyed by
    (seed, epoch).
    """
    epoch, offset = divmod(position, length)
    return epoch, index_shuffle(offset, max_index=length - 1, seed=_key(seed, epoch), rounds=4)


@functools.lru_cache(maxsize=16)
def _key(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


@dataclasses.dataclass(frozen=True)
class Share:
    """One process's part of every batch."""

    batch_size: int  # examples of all processes, a multiple of `process_count`
    process_index: int
    process_count: int

    @property
    def size(self) -> int:
        """Examples of this process in a batch."""
        return self.batch_size // self.process_count

    def positions(self, step: int) -> range:
        """Positions of the stream that this process shows at `step`, one an example."""
        first = step * self.batch_size + self.process_index * self.size
        return range(first, first + self.size)
