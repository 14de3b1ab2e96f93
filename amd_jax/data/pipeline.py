"""Streams of uint8 batches: what `order` says is read by `reading`, seen through `views`, and put together.

What a batch holds is a function of the config and its number alone: of neither the number of processes,
workers and threads nor how the run got there. Whatever is random about an example comes from generators made
of (seed, epoch, index, view).

One element of a grain data set is a chunk of a few examples, so that threads or worker processes share a
batch and nobody holds more of it than has to wait. Elements are numbered, made from their number and kept in
order by grain, so a run continues at any step at no cost. This process puts batches together, row by row.
Workers run no jax computation: they never touch an accelerator.
"""

import dataclasses
import itertools
import math
import signal
from collections.abc import Callable, Iterator
from types import TracebackType

import grain
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.data import sampling
from amd_jax.data.example import Source
from amd_jax.data.order import Share, shuffled_index
from amd_jax.data.reading import Failures, Reader, Unreadable
from amd_jax.data.sampling import Sampler
from amd_jax.data.views import EvalViews, TrainViews
from amd_jax.errors import ConfigError

Batch = dict[str, np.ndarray]
Element = tuple[Batch, Failures]

# An element costs grain a fraction of a millisecond, more where it comes from a worker process: as much as
# making several 28×28 images, little beside ten photographs, nothing beside a video. So a chunk holds at most
# so many bytes of pixels and so many examples …
_CHUNK_BYTES = 2**21
_CHUNK_EXAMPLES = 64
# … and more only where more elements than this would be ahead otherwise: those of workers are open files.
_MAX_AHEAD = 256
_MIN_SHARED_BYTES = 2**14  # smaller arrays travel between processes faster without shared memory

_ENDLESS = 2**62  # the training stream has no end; grain wants one


@dataclasses.dataclass(frozen=True)
class _TrainRows:
    """Makes `pixels` [examples, views, T, H, W, C] and `label` [examples, views] of training positions."""

    reader: Reader
    views: TrainViews
    seed: int

    def __call__(self, positions: range) -> Element:
        pixels = np.empty((len(positions), *self.views.shape), np.uint8)
        label = np.empty(pixels.shape[:2], np.int32)
        failures: Failures = []
        for row, position in enumerate(positions):
            epoch, index = shuffled_index(self.seed, position, len(self.reader.source))
            # Keyed by the planned index even where another example stands in for it: the stand-in then
            # differs from its own appearance in the same epoch.
            key = (self.seed, epoch, index)
            frames, label[row] = self.reader.read_or_next(index, key, failures)
            pixels[row] = self.views(frames, key)
        return {"pixels": pixels, "label": label}, failures


@dataclasses.dataclass(frozen=True)
class _EvalRows:
    """The same of the examples in their own order, with `example` and `mask`; behind the last is padding."""

    reader: Reader
    views: EvalViews

    def __call__(self, positions: range) -> Element:
        pixels = np.zeros((len(positions), *self.views.shape), np.uint8)
        label = np.zeros(pixels.shape[:2], np.int32)
        example = np.full(pixels.shape[:2], -1, np.int32)
        mask = np.zeros(pixels.shape[:2], np.float32)
        failures: Failures = []
        for row, index in enumerate(positions[: max(0, len(self.reader.source) - positions.start)]):
            example[row] = index
            try:
                # Where one clip is drawn of a video, it is the same one in every evaluation.
                frames, label[row] = self.reader.read(index, (0, 0, index))
            except OSError as error:
                failures.append((index, str(error)))
                continue
            pixels[row], mask[row] = self.views(frames), 1
        return {"pixels": pixels, "label": label, "example": example, "mask": mask}, failures


@dataclasses.dataclass(frozen=True)
class _Chunks:
    """A process's share of every batch, cut into elements; calling it makes one. Picklable."""

    rows: Callable[[range], Element]
    share: Share
    size: int  # examples of an element; the last of a batch may have fewer

    @property
    def per_batch(self) -> int:
        """Number of elements of a batch."""
        return _ceil_div(self.share.size, self.size)

    def __call__(self, number: int) -> Element:
        step, chunk = divmod(number, self.per_batch)
        return self.rows(self.share.positions(step)[chunk * self.size : (chunk + 1) * self.size])


def _chunk_size(views: TrainViews | EvalViews, share: Share, prefetch: int) -> int:
    """Examples of an element, such that those of a batch are about equal; nothing in it depends on this."""
    few = max(1, min(_CHUNK_BYTES // math.prod(views.shape), _CHUNK_EXAMPLES))
    size = max(few, _ceil_div(prefetch * share.size, _MAX_AHEAD))
    return _ceil_div(share.size, _ceil_div(share.size, size))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _assemble(elements: Iterator[Element], chunks: _Chunks, unreadable: Unreadable) -> Batch:
    """The next batch, one row a view, in memory of its own: what workers share is given back at once."""
    batch: Batch = {}
    row = 0
    for rows, failures in itertools.islice(elements, chunks.per_batch):
        unreadable.report(failures)
        for name, part in rows.items():
            if name not in batch:
                batch[name] = np.empty((chunks.share.size, *part.shape[1:]), part.dtype)
            batch[name][row : row + len(part)] = part
        row += len(rows["label"])
    return {name: value.reshape(-1, *value.shape[2:]) for name, value in batch.items()}


class TrainStream:
    """Endless batches of one process; made by `train_stream`. Close it, or use it as a context manager.

    Each batch has `pixels` uint8 [local batch × views, T, H, W, C] (an image is a video of one frame) and
    `label` int32 [local batch × views], C-contiguous, the views of an example side by side.

    Attributes:
      step: the step of the batch that comes next.
    """

    def __init__(
        self, elements: grain.DatasetIterator, chunks: _Chunks, step: int, unreadable: Unreadable
    ) -> None:
        self._elements: grain.DatasetIterator | None = elements
        self._chunks = chunks
        self._unreadable = unreadable
        self.step = step

    @property
    def skipped(self) -> int:
        """Number of distinct examples of this process that could not be read so far."""
        return len(self._unreadable)

    def __iter__(self) -> "TrainStream":
        return self

    def __next__(self) -> Batch:
        if self._elements is None:
            raise StopIteration
        try:
            batch = _assemble(self._elements, self._chunks, self._unreadable)
        except BaseException:
            self.close()  # what comes next would begin in the middle of a batch
            raise
        self.step += 1
        return batch

    def close(self) -> None:
        """End the reading threads and processes; there are no batches after it."""
        if self._elements is not None:
            self._elements.close()
        self._elements = None  # one that lives to the end of the interpreter would complain there

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
    share = _share(config.batch_size, process_index, process_count, "batch_size")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed={config.seed}: choose a seed from 0 to 2**32 - 1")
    views = TrainViews.from_config(data)
    role = "finetune" if methods.of(config).labels else "pretrain"
    least_scale = views.least_scale if data.jpeg == "reduced" else None
    reader = Reader(source, data.channels, _sampler(data, role), least_scale)
    rows = _TrainRows(reader, views, config.seed)
    chunks = _Chunks(rows, share, _chunk_size(views, share, data.prefetch))
    made = grain.MapDataset.range(start_step * chunks.per_batch, _ENDLESS).map(chunks)
    ahead = data.prefetch * chunks.per_batch
    elements = (
        _by_workers(made, data.workers, ahead) if data.workers else _by_threads(made, data.threads, ahead)
    )
    iterator = iter(elements)
    iterator.start_prefetch()  # reading overlaps with whatever the caller does first, such as compiling
    return TrainStream(iterator, chunks, start_step, Unreadable(source, data.max_corrupt))


def eval_batches(
    config: ConfigDict,
    source: Source,
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
    clips: int = 1,
    crops: int = 1,
) -> Iterator[Batch]:
    """One pass over `source`: every example once over all processes, in order, without augmentation.

    With one clip and one crop, a view is the centre of an image or of a clip as fine-tuning draws it; else
    views are those of the released tests. All processes yield the same number of batches of the same shape:
    `pixels` uint8 [local batch × views, T, H, W, C]; `label` and `example` int32 and `mask` float32 [local
    batch × views]. `example` is the index in `source`, the same for all views of an example, and -1 in
    padding. The mask is 0 where a row is padding or its example could not be read; the pixels and labels of
    such rows are zeros.

    Args:
      config: the whole config; `data` is read.
      source: what to evaluate on.
      batch_size: examples over all processes.
      process_index: which part of each batch to make, in [0, process_count).
      process_count: number of processes that share a batch.
      clips: of a video; 1 for images.
      crops: of each clip or image.

    Raises:
      ConfigError: for a batch size that processes cannot share, at once; while reading, for more than
        `data.max_corrupt` unreadable images.
    """
    data = config.data
    share = _share(batch_size, process_index, process_count, "evaluation batch size")
    views = EvalViews.from_config(data, clips, crops)
    sampler = _sampler(data, "test" if clips * crops > 1 else "finetune", clips)
    rows = _EvalRows(Reader(source, data.channels, sampler), views)
    chunks = _Chunks(rows, share, _chunk_size(views, share, data.prefetch))
    batches = _ceil_div(len(source), batch_size)
    made = grain.MapDataset.range(batches * chunks.per_batch).map(chunks)
    # Threads even where training has worker processes: starting those takes long for a single pass, and
    # Pillow's decoding and resizing do not hold the interpreter.
    # A batch of many views is so large that the next ones are not made ahead as well.
    ahead = max(1, data.prefetch // (clips * crops)) * chunks.per_batch
    elements = _by_threads(made, max(data.threads, data.workers), ahead)
    return _one_pass(iter(elements), chunks, batches, Unreadable(source, data.max_corrupt))


def _one_pass(
    elements: grain.DatasetIterator, chunks: _Chunks, batches: int, unreadable: Unreadable
) -> Iterator[Batch]:
    try:
        for _ in range(batches):
            yield _assemble(elements, chunks, unreadable)
    finally:
        elements.close()
    if len(unreadable):
        logging.warning("%d examples were left out of this evaluation", len(unreadable))


def _sampler(data: ConfigDict, role: str, clips: int = 1) -> Sampler:
    return sampling.make(data.sampling, role, frames=data.frames, stride=data.stride, clips=clips)


def _share(batch_size: int, process_index: int, process_count: int, what: str) -> Share:
    if batch_size <= 0 or batch_size % process_count:
        raise ConfigError(
            f"{what}={batch_size}: must be a positive multiple of the {process_count} processes"
        )
    return Share(batch_size, process_index, process_count)


def _by_threads(made: grain.MapDataset, threads: int, ahead: int) -> grain.IterDataset:
    # A thread makes one element at a time, so fewer ahead than threads would leave threads idle.
    return made.to_iter_dataset(grain.ReadOptions(threads, max(ahead, threads)))


def _by_workers(made: grain.MapDataset, workers: int, ahead: int) -> grain.IterDataset:
    if not flags.FLAGS.is_parsed():  # grain reads a flag of its own when it starts a worker
        flags.FLAGS.mark_as_parsed()
    elements = made.to_iter_dataset(grain.ReadOptions(1, 1))
    elements = grain.experimental.WithOptionsIterDataset(
        elements, grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED_BYTES)
    )
    # Of each worker's elements, grain holds as many again on this side of the queue.
    options = grain.MultiprocessingOptions(workers, _ceil_div(ahead, 2 * workers))
    return elements.mp_prefetch(options, worker_init_fn=_ignore_signals)


def _ignore_signals(worker: int, workers: int) -> None:
    """Ctrl-C and a job's SIGTERM reach workers too; the run decides when they end, after it has saved."""
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
