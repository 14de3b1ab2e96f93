"""What a run writes about itself: TensorBoard events and `metrics.jsonl`.

Neither TensorFlow nor PyTorch is imported, whether they are installed or not: that takes seconds and memory,
perhaps an accelerator's. `clu.metric_writers` imports TensorFlow, so the writer does not inherit from clu's
`MetricWriter`, but has the methods of it that a run here calls.
"""

import contextlib
import errno
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from amd_jax.train.throughput import number
from amd_jax.workdir import METRICS

# tensorboardX imports PyTorch where that is installed, for its own tensors.
_TORCH: Any = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
try:
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
finally:
    if _TORCH is None:
        del sys.modules["torch"]

FLUSH_SECONDS = 10  # events that are older than this are on disk as soon as the next one is written


def make_writer(workdir: str, *, resume_step: int) -> "Writer":
    """Opens the run's metrics in the local directory `workdir`; one process of a run does this.

    Args:
      workdir: made if it is missing.
      resume_step: the step of the checkpoint that training goes on from; what was logged after it will
        be logged again and is dropped. 0: a new run, whose metrics start afresh.

    Raises:
      OSError: `workdir` cannot be made.
    """
    os.makedirs(workdir, exist_ok=True)
    return Writer(workdir, resume_step=resume_step)


class Writer:
    """Writes TensorBoard event files and, for scalars, one JSON object a line into `metrics.jsonl`.

    A failing disk does not end a run: the first `OSError` of each of the two outputs is logged, the rest
    are silent. `metrics.jsonl` goes on when there is room again, without the lines that found none;
    TensorBoard is off until the next start, since what comes after half an event cannot be read.
    """

    def __init__(self, workdir: str, *, resume_step: int) -> None:
        self._warned: set[str] = set()
        self._lines: io.FileIO | None = None
        self._events: EventsWriter | None = None
        self._flushed = time.monotonic()
        path = os.path.join(workdir, METRICS)
        with self._survive("metrics.jsonl"):
            _drop_lines_after(path, resume_step)
        with self._survive("metrics.jsonl"):
            # Unbuffered and in append mode: a line is one write, so whoever tails the file sees whole ones.
            self._lines = open(path, "ab", buffering=0)  # noqa: SIM115 closed by close()
        with self._survive("TensorBoard"):
            # Named by the second; the suffix is another one for each writer, and sorts like time.
            self._events = EventsWriter(os.path.join(workdir, "events"), f".{time.time_ns()}")
        # START tells TensorBoard to forget what earlier event files hold from this step on.
        start = SessionLog(status=SessionLog.START)
        self._add_event(Event(step=resume_step + 1 if resume_step else 0, session_log=start))

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Scalars are numbers or arrays of one element; values on a device are fetched in one go."""
        fetched = jax.device_get(dict(scalars))
        values = {name: number(fetched[name]) for name in scalars}  # device_get sorts, this does not
        record = {"step": int(step), **{name: _json_number(value) for name, value in values.items()}}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._survive("metrics.jsonl"):
            self._add_line(line)
        self._add_summaries(step, (summary.scalar(name, value) for name, value in values.items()))

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Images are uint8 `[n, height, width, channels]` or `[height, width, channels]`, 1 or 3 channels.

        Raises:
          ValueError: another type or shape.
        """
        named = {}
        for name, array in images.items():
            batch = np.asarray(array)
            batch = batch[None] if batch.ndim == 3 else batch
            if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] not in (1, 3):
                raise ValueError(
                    f"image {name!r}: {batch.dtype} {batch.shape} is not uint8 [n, h, w, 1 or 3]"
                )
            for i, pixels in enumerate(batch):
                named[f"{name}/{i}" if len(batch) > 1 else name] = pixels
        self._add_summaries(step, (summary.image(*item, dataformats="HWC") for item in named.items()))

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for TensorBoard's text tab; its tag there is NAME/text_summary."""
        self._add_summaries(step, (summary.text(name, text) for name, text in texts.items()))

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """A flat mapping, shown as a table in the text tab under "hparams"."""
        rows = [f"| {key} | `{value!r}` |" for key, value in hparams.items()]
        self.write_texts(0, {"hparams": "\n".join(["| key | value |", "| --- | --- |", *rows])})

    def flush(self) -> None:
        """Blocks until all that was written so far is on disk."""
        self._flushed = time.monotonic()
        self._on_events(EventsWriter.flush)

    def close(self) -> None:
        """Flushes and closes the files; a second call does nothing."""
        self._on_events(EventsWriter.close)
        self._events = None
        with self._survive("metrics.jsonl"):
            if self._lines is not None:
                self._lines.close()
        self._lines = None

    @contextlib.contextmanager
    def _survive(self, output: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if output not in self._warned:
                self._warned.add(output)
                logging.warning("%s is incomplete, the run goes on without it: %s", output, error)

    def _add_line(self, line: bytes) -> None:
        if self._lines is None:
            return
        written = self._lines.write(line)
        if written != len(line):  # a nearly full disk takes a part and reports no error
            self._lines.truncate(self._lines.tell() - written)  # the file has whole lines only
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _add_summaries(self, step: int, summaries: Iterable[Summary]) -> None:
        if self._events is not None:
            values = [value for one in summaries for value in one.value]
            self._add_event(Event(step=int(step), summary=Summary(value=values)))

    def _add_event(self, event: Event) -> None:
        """Written here, not by tensorboardX's thread: a full disk ends that, and the next call blocks."""
        event.wall_time = time.time()
        self._on_events(lambda events: events.write_event(event))
        if time.monotonic() > self._flushed + FLUSH_SECONDS:
            self.flush()

    def _on_events(self, action: Callable[[EventsWriter], Any]) -> None:
        if self._events is None:
            return
        events, self._events = self._events, None
        with self._survive("TensorBoard"):
            action(events)
            self._events = events


def _drop_lines_after(path: str, step: int) -> None:
    """Keeps the whole lines of `path` up to `step`; a crash leaves the old file or the new one.

    A line that is not whole, such as the last one of a killed run, is dropped.
    """
    if not os.path.exists(path):
        return
    temporary = path + ".tmp"
    with open(path, "rb") as old, open(temporary, "wb") as new:
        if step > 0:
            new.writelines(line for line in old if _is_up_to(line, step))
        new.flush()
        os.fsync(new.fileno())
    os.replace(temporary, path)


def _is_up_to(line: bytes, step: int) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    logged = record.get("step") if isinstance(record, dict) else None
    return line.endswith(b"\n") and isinstance(logged, int) and logged <= step


def _json_number(value: int | float) -> int | float | None:
    """Floats get the fewest digits that give the same float32; JSON has no NaN and no infinity."""
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if np.isfinite(single) else value
