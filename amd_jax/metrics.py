"""What a run writes about itself: TensorBoard events and `metrics.jsonl`.

TensorFlow is never imported, whether it is installed or not: it costs a dozen seconds and may take an
accelerator's memory.
"""

import contextlib
import errno
import io
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from PIL import Image


class _LazySummaryWriter:
    """Stands in for `clu.metric_writers.SummaryWriter`; asking for one still gives the real one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        from clu.metric_writers.tf.summary_writer import SummaryWriter

        return SummaryWriter(*args, **kwargs)


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """While it is entered, importing clu's writers and tensorboard does not import TensorFlow.

    clu imports its TensorFlow writer at the top, so that module is stubbed. tensorboard prefers its
    own small stand-in for TensorFlow when a module `tensorboard.compat.notf` exists. Neither stub stays
    in `sys.modules`; a module that was there before is not replaced.
    """
    clu_writer = types.ModuleType("clu.metric_writers.summary_writer")
    clu_writer.SummaryWriter = _LazySummaryWriter  # type: ignore[attr-defined]
    notf = types.ModuleType("tensorboard.compat.notf")
    added = [module for module in (clu_writer, notf) if module.__name__ not in sys.modules]
    sys.modules.update({module.__name__: module for module in added})
    try:
        yield
    finally:
        for module in added:
            sys.modules.pop(module.__name__, None)


with _without_tensorflow():
    from clu.metric_writers import MetricWriter
    from tensorboard.compat import tf as _tensorboard_tf
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorboard.plugins.text import metadata as text_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    _ = _tensorboard_tf.io  # the choice is made, once for the process, at the first attribute


def make_writer(workdir: str, *, resume_step: int) -> "Writer":
    """Opens the run's metrics in the local directory `workdir`; one process of a run does this.

    Args:
      workdir: made if it is missing.
      resume_step: the step of the checkpoint that training goes on from; what was logged after it will
        be logged again and is dropped. 0: a new run, whose metrics start afresh.

    Raises:
      ValueError: `workdir` is a URL such as gs://…; lines cannot be appended there.
      OSError: `workdir` cannot be made.
    """
    if "://" in workdir:
        raise ValueError(f"metrics need a local directory, not {workdir}")
    os.makedirs(workdir, exist_ok=True)
    return Writer(workdir, resume_step=resume_step)


def read(workdir: str) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first; a step has one for each thing that was logged there."""
    with open(os.path.join(workdir, "metrics.jsonl")) as lines:
        return [json.loads(line) for line in lines]


def _not_written(kind: str) -> Callable[..., None]:
    """A method of the writer's interface that no run here has a use for: it says so once."""

    def write(self: "Writer", *args: Any, **kwargs: Any) -> None:
        self._warn_once(kind, "%s are not written to the metrics", kind)

    return write


class Writer(MetricWriter):
    """Writes TensorBoard event files and, for scalars, one JSON object a line into `metrics.jsonl`.

    A failing disk does not end a run: the first `OSError` of each of the two outputs is logged, the rest
    are silent. `metrics.jsonl` goes on when there is room again, without the lines that found none;
    TensorBoard is off until the next start (its writer does not survive an error).
    """

    def __init__(self, workdir: str, *, resume_step: int) -> None:
        self._warned: set[str] = set()
        self._lines: io.FileIO | None = None
        self._events: EventFileWriter | None = None
        path = os.path.join(workdir, "metrics.jsonl")
        with self._survive("metrics.jsonl"):
            _drop_lines_after(path, resume_step)
        with self._survive("metrics.jsonl"):
            # Unbuffered and in append mode: a line is one write, so whoever tails the file sees whole ones.
            self._lines = open(path, "ab", buffering=0)  # noqa: SIM115 closed by close()
        with self._survive("TensorBoard"):
            self._events = EventFileWriter(workdir, max_queue_size=100, flush_secs=10)
        # START tells TensorBoard to forget what earlier event files hold from this step on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add_event(resume_step + 1 if resume_step else 0, session_log=start)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Scalars are numbers or arrays of one element; values on a device are fetched in one go."""
        fetched = jax.device_get(dict(scalars))
        values = {name: number(fetched[name]) for name in scalars}  # device_get sorts, this does not
        record = {"step": int(step), **{name: _json_number(value) for name, value in values.items()}}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self._survive("metrics.jsonl"):
            self._add_line(line)
        self._add_summary(
            step,
            [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()],
        )

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Images are uint8 `[n, height, width, channels]` or `[height, width, channels]`, 1 or 3 channels.

        Raises:
          ValueError: another type or shape.
        """
        values = []
        for name, array in images.items():
            batch = np.asarray(array)
            batch = batch[None] if batch.ndim == 3 else batch
            if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] not in (1, 3):
                raise ValueError(
                    f"image {name!r}: {batch.dtype} {batch.shape} is not uint8 [n, h, w, 1 or 3]"
                )
            for i, pixels in enumerate(batch):
                tag = f"{name}/{i}" if len(batch) > 1 else name
                values.append(summary_pb2.Summary.Value(tag=tag, image=_png(pixels)))
        self._add_summary(step, values)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown for TensorBoard's text tab."""
        values = []
        for name, text in texts.items():
            tensor = tensor_pb2.TensorProto(
                dtype=types_pb2.DT_STRING,
                string_val=[text.encode()],
                tensor_shape=tensor_shape_pb2.TensorShapeProto(),
            )
            metadata = text_metadata.create_summary_metadata(display_name=name, description="")
            values.append(summary_pb2.Summary.Value(tag=name, tensor=tensor, metadata=metadata))
        self._add_summary(step, values)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """A flat mapping, shown as a table in the text tab under "hparams"."""
        rows = [f"| {key} | `{value!r}` |" for key, value in hparams.items()]
        self.write_texts(0, {"hparams": "\n".join(["| key | value |", "| --- | --- |", *rows])})

    write_videos = _not_written("videos")
    write_audios = _not_written("audios")
    write_histograms = _not_written("histograms")
    write_summaries = _not_written("summaries")
    write_pointcloud = _not_written("point clouds")  # newer versions of clu ask for it

    def flush(self) -> None:
        """Blocks until all that was written so far is in the files."""
        self._on_events(lambda events: events.flush())

    def close(self) -> None:
        """Flushes and closes the files; a second call does nothing."""
        self._on_events(lambda events: events.close())
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
            self._warn_once(output, "%s is incomplete, the run goes on without it: %s", output, error)

    def _warn_once(self, about: str, message: str, *args: Any) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logging.warning(message, *args)

    def _add_line(self, line: bytes) -> None:
        if self._lines is None:
            return
        written = self._lines.write(line)
        if written != len(line):  # a nearly full disk takes a part and reports no error
            self._lines.truncate(self._lines.tell() - written)  # the file has whole lines only
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _add_summary(self, step: int, values: list[summary_pb2.Summary.Value]) -> None:
        self._add_event(step, summary=summary_pb2.Summary(value=values))

    def _add_event(self, step: int, **content: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=int(step), **content)
        self._on_events(lambda events: events.add_event(event))

    def _on_events(self, action: Callable[[EventFileWriter], None]) -> None:
        """Events are written by a thread, which reports its error at the next call and is dead then."""
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


def number(value: Any) -> int | float:
    item = np.asarray(value).item()  # an error for more than one element
    return int(item) if isinstance(item, int) else float(item)


def _json_number(value: int | float) -> int | float | None:
    """Floats get the fewest digits that give the same float32; JSON has no NaN and no infinity."""
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if np.isfinite(single) else value


def _png(pixels: np.ndarray) -> summary_pb2.Summary.Image:
    """uint8 `[height, width, 1 or 3]` as TensorBoard's image summary."""
    height, width, channels = pixels.shape
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, format="PNG")
    return summary_pb2.Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=buffer.getvalue()
    )
