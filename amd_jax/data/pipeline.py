"""Batches of uint8 images, in an order that depends on the seed alone.

The training stream is a sequence of positions 0, 1, 2, …: position g shows the example
`shuffled_index(seed, g, N)` of a source of N, every epoch of N positions being a new permutation. Optimiser
step s takes positions [s·B, (s+1)·B), and process p of n their p-th part. Whatever is random about a sample
comes from a generator made of (seed, epoch, index, repeat). So the content of step s depends neither on how
the run got there nor on the number of processes, workers and threads.

One element of the grain data set is therefore one whole batch, a function of the step. Grain reads ahead,
spreads steps over threads or worker processes and keeps them in order; a run continues at any step at no
cost. Workers run no jax computation: they never touch an accelerator.
"""

import dataclasses
import functools
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import grain
import numpy as np
from absl import flags, logging
from grain.experimental import index_shuffle
from ml_collections import ConfigDict

from amd_jax.config import ConfigError
from amd_jax.data import transforms
from amd_jax.data.randaugment import Policy, mean_fill, parse, rand_augment, random_erasing
from amd_jax.data.sources import Source

Batch = dict[str, np.ndarray]

# So many unreadable neighbours are not a few bad files but a broken disk or a wrong directory.
MAX_CONSECUTIVE_UNREADABLE = 50

_LAST_STEP = 2**62  # the training stream has no end; grain wants one


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


class Unreadable:
    """Keeps count of unreadable examples, names each once in the log, and stops at the limit."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def report(self, failures: list[tuple[int, str]]) -> None:
        """Take note of (index, reason) pairs; raises ConfigError when there are more than the limit."""
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


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
    """Makes this process's part of the batch of a step; picklable."""

    source: Source
    seed: int
    batch_size: int  # of all processes
    process_index: int
    process_count: int
    repeats: int
    image_size: int
    channels: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool
    policy: Policy | None
    erasing: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, step: int) -> dict[str, Any]:
        local = self.batch_size // self.process_count
        start = step * self.batch_size + self.process_index * local
        size = self.image_size
        pixels = np.empty((local, self.repeats, 1, size, size, self.channels), np.uint8)
        labels = np.empty((local, self.repeats), np.int32)
        failures: list[tuple[int, str]] = []
        for row, position in enumerate(range(start, start + local)):
            epoch, index = shuffled_index(self.seed, position, len(self.source))
            image, labels[row] = self._read(index, failures)
            for repeat in range(self.repeats):
                # Keyed by the planned index even where another example stands in for it: the stand-in then
                # differs from its own appearance in the same epoch.
                rng = np.random.default_rng((self.seed, epoch, index, repeat))
                pixels[row, repeat, 0] = self._augment(image, rng)
        return {
            "pixels": pixels.reshape(-1, *pixels.shape[2:]),
            "label": labels.reshape(-1),
            "failures": failures,
        }

    def _read(self, index: int, failures: list[tuple[int, str]]) -> tuple[np.ndarray, int]:
        """The decoded image and label at `index`, or those of the next example that can be read."""
        for attempt in range(MAX_CONSECUTIVE_UNREADABLE):
            candidate = (index + attempt) % len(self.source)
            try:
                example = self.source[candidate]
                return transforms.decode(example.image, self.channels), example.label
            except OSError as error:
                failures.append((candidate, str(error)))
        raise ConfigError(
            f"{MAX_CONSECUTIVE_UNREADABLE} unreadable images in a row, from"
            f" {self.source.describe(index)}; look at the data: is the disk there and the copy complete?"
        )

    def _augment(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = transforms.random_resized_crop(image, self.image_size, self.crop_scale, self.crop_ratio, rng)
        image = transforms.random_flip(image, rng) if self.flip else image
        if self.policy is not None:
            image = rand_augment(image, self.policy, rng)
        return random_erasing(image, self.erasing, rng, self.mean, self.std) if self.erasing else image


class TrainStream:
    """Endless batches of one process; made by `train_stream`. Close it, or use it as a context manager.

    Each batch has `pixels` uint8 [local batch × repeats, 1, H, W, C] (an image is a video of one frame) and
    `label` int32 [local batch × repeats], C-contiguous, the repeats of an example side by side.

    Attributes:
      step: the step of the batch that comes next.
    """

    def __init__(self, batches: grain.DatasetIterator, step: int, unreadable: Unreadable) -> None:
        self._batches: grain.DatasetIterator | None = batches
        self._unreadable = unreadable
        self.step = step

    @property
    def skipped(self) -> int:
        """Number of distinct examples of this process that could not be read so far."""
        return len(self._unreadable)

    def __iter__(self) -> "TrainStream":
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            raise StopIteration
        batch = next(self._batches)
        self._unreadable.report(batch.pop("failures"))
        self.step += 1
        # What a worker process sent lies in shared memory; a copy gives it back at once and costs a few
        # milliseconds, whoever keeps the batch for however long.
        return {key: np.array(value, copy=type(value) is not np.ndarray) for key, value in batch.items()}

    def close(self) -> None:
        """End the reading threads and processes; there are no batches after it."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None  # one that lives to the end of the interpreter would complain there

    def __enter__(self) -> "TrainStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def train_stream(
    config: ConfigDict,
    source: Source,
    *,
    start_step: int,
    process_index: int,
    process_count: int,
) -> TrainStream:
    """The training batches of one process from `start_step` on.

    Args:
      config: the whole config; `seed`, `batch_size` and `data` are read.
      source: what to train on.
      start_step: the first step wanted; nothing before it is read.
      process_index: which part of each batch to make, in [0, process_count).
      process_count: number of processes that share a batch.

    Raises:
      ConfigError: here, for a batch size that processes cannot share or a negative seed; while reading, for
        more than `data.max_corrupt` unreadable images.
    """
    data = config.data
    _check_divisible(config.batch_size, process_count, "batch_size")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed={config.seed}: choose a seed from 0 to 2**32 - 1")
    make = _TrainBatch(
        source=source,
        seed=config.seed,
        batch_size=config.batch_size,
        process_index=process_index,
        process_count=process_count,
        repeats=data.repeats,
        image_size=data.image_size,
        channels=data.channels,
        crop_scale=tuple(data.crop_scale),
        crop_ratio=tuple(data.crop_ratio),
        flip=data.flip,
        policy=parse(data.randaugment, mean_fill(data.mean)) if data.randaugment else None,
        erasing=data.erasing,
        mean=tuple(data.mean),
        std=tuple(data.std),
    )
    steps = grain.MapDataset.range(start_step, _LAST_STEP).map(make)
    batches = steps.to_iter_dataset(_read_options(data))
    if data.workers:
        if not flags.FLAGS.is_parsed():  # grain reads a flag of its own when it starts a worker
            flags.FLAGS.mark_as_parsed()
        ahead = -(-data.prefetch // data.workers)
        options = grain.MultiprocessingOptions(data.workers, ahead)
        batches = batches.mp_prefetch(options, worker_init_fn=_ignore_signals)
    iterator = iter(batches)
    iterator.start_prefetch()  # reading overlaps with whatever the caller does first, such as compiling
    return TrainStream(iterator, start_step, Unreadable(source, data.max_corrupt))


@dataclasses.dataclass(frozen=True)
class _EvalBatch:
    """Makes this process's part of the evaluation batch of a number."""

    source: Source
    batch_size: int  # of all processes
    process_index: int
    process_count: int
    image_size: int
    channels: int

    def __call__(self, number: int) -> dict[str, Any]:
        local = self.batch_size // self.process_count
        start = number * self.batch_size + self.process_index * local
        size = self.image_size
        pixels = np.zeros((local, 1, size, size, self.channels), np.uint8)
        labels = np.zeros(local, np.int32)
        mask = np.zeros(local, np.float32)
        failures = []
        for row, index in enumerate(range(start, min(start + local, len(self.source)))):
            try:
                example = self.source[index]
                image = transforms.decode(example.image, self.channels)
            except OSError as error:
                failures.append((index, str(error)))
                continue
            pixels[row, 0] = transforms.resize_center_crop(image, size)
            labels[row], mask[row] = example.label, 1
        return {"pixels": pixels, "label": labels, "mask": mask, "failures": failures}


def eval_batches(
    config: ConfigDict,
    source: Source,
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """One pass over `source`: every example once over all processes, in order, without augmentation.

    All processes yield the same number of batches of the same shape: `pixels` uint8 [local batch, 1, H, W,
    C], `label` int32 and `mask` float32 [local batch]. The mask is 0 where a row is padding or its image
    could not be read; such rows are zeros.

    Args:
      config: the whole config; `data` is read.
      source: what to evaluate on.
      batch_size: rows over all processes.
      process_index: which part of each batch to make, in [0, process_count).
      process_count: number of processes that share a batch.

    Raises:
      ConfigError: for a batch size that processes cannot share, at once; while reading, for more than
        `data.max_corrupt` unreadable images.
    """
    data = config.data
    _check_divisible(batch_size, process_count, "evaluation batch size")
    make = _EvalBatch(source, batch_size, process_index, process_count, data.image_size, data.channels)
    numbers = grain.MapDataset.range(-(-len(source) // batch_size)).map(make)
    # Threads even where training has worker processes: starting those takes long for a single pass, and
    # Pillow's decoding and resizing do not hold the interpreter.
    threads = max(data.threads, data.workers)
    batches = numbers.to_iter_dataset(grain.ReadOptions(threads, threads))
    return _eval_iterator(iter(batches), Unreadable(source, data.max_corrupt))


def _eval_iterator(batches: grain.DatasetIterator, unreadable: Unreadable) -> Iterator[Batch]:
    try:
        for batch in batches:
            unreadable.report(batch.pop("failures"))
            yield batch
    finally:
        batches.close()
    if len(unreadable):
        logging.warning("%d images were left out of this evaluation", len(unreadable))


def _check_divisible(batch_size: int, process_count: int, what: str) -> None:
    if batch_size <= 0 or batch_size % process_count:
        raise ConfigError(
            f"{what}={batch_size}: must be a positive multiple of the {process_count} processes"
        )


def _ignore_signals(worker: int, workers: int) -> None:
    """Ctrl-C and a job's SIGTERM reach workers too; the run decides when they end, after it has saved."""
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _read_options(data: ConfigDict) -> grain.ReadOptions:
    if data.workers:
        return grain.ReadOptions(1, 1)  # one batch at a time in each worker: they may be large
    # A thread makes one batch at a time, so fewer batches ahead than threads would leave threads idle.
    return grain.ReadOptions(data.threads, max(data.prefetch, data.threads))
