"""What a run tells about itself: TensorBoard events, `metrics.jsonl`, throughput, MFU, the progress line.

TensorFlow is never imported, whether it is installed or not: it costs a dozen seconds and may take an
accelerator's memory.
"""

import contextlib
import errno
import io
import json
import math
import os
import re
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
        values = {name: _number(fetched[name]) for name in scalars}  # device_get sorts, this does not
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


def _number(value: Any) -> int | float:
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


# Dense peak in TFLOP/s of one jax device, for 16-bit and for float32 matrix products at jax's default
# precision (`jax.lax.Precision`): a TPU rounds float32 inputs to bfloat16, an NVIDIA GPU since Ampere
# uses TF32. Vendors often print the figure with sparsity, twice the dense one.
#
# TPU: cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}, "peak compute per chip"; v4 lite: Jouppi et
# al., "Ten Lessons From Three Generations Shaped Google's TPUv4i" (2021), table 1. A device is a chip,
# except for v2, v3 and 7x, where it is one of a chip's two cores. Names: jax's mosaic/tpu_info.py.
# GPU: NVIDIA's datasheets of each product; GeForce: appendices of the GA102 and Ada whitepapers, for
# accumulation in float32. Names: what CUDA reports, as a pattern.
_PEAK_TFLOPS: tuple[tuple[str, float, float], ...] = (
    ("TPU v2", 45 / 2, 45 / 2),
    ("TPU v3", 123 / 2, 123 / 2),
    ("TPU v4 lite", 138, 138),
    ("TPU v4", 275, 275),
    ("TPU v5 lite|TPU v5e", 197, 197),
    ("TPU v5|TPU v5p", 459, 459),
    ("TPU v6 lite|TPU v6e", 918, 918),
    ("TPU7x", 2307 / 2, 2307 / 2),
    ("NVIDIA GB200.*", 2500, 1250),
    ("NVIDIA B200.*", 2250, 1125),
    ("NVIDIA GH200.*", 989.5, 494.5),
    ("NVIDIA H200 NVL", 835.5, 417.5),
    ("NVIDIA H200", 989.5, 494.5),
    ("NVIDIA H100 NVL", 835.5, 417.5),
    ("NVIDIA H100 PCIe", 756.5, 378),
    (r"NVIDIA H100 \d+GB HBM3", 989.5, 494.5),  # SXM
    ("(NVIDIA )?A100[- ].*", 312, 156),
    ("NVIDIA L40S", 362, 183),
    ("NVIDIA L4", 121, 60),
    (r"Tesla V100-SXM\d-.*", 125, 15.7),
    ("Tesla V100-PCIE-.*", 112, 14),
    ("Tesla T4", 65, 8.1),
    ("NVIDIA GeForce RTX 3090", 71, 35.6),
    ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
)
# Volta and Turing have float16 but no bfloat16 matrix units.
_NO_BFLOAT16 = "Tesla (V100|T4).*"


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Dense peak FLOP/s of one jax device; multiply by the number of devices for that of a run.

    Args:
      device_kind: `jax.Device.device_kind`.
      dtype: compute type, "bfloat16", "float16" or "float32" (at jax's default matmul precision).

    Returns:
      None for a CPU, a device or type that is not in the table, and a part of a GPU (MIG).
    """
    if " MIG " in device_kind or dtype not in ("bfloat16", "float16", "float32"):
        return None
    if dtype == "bfloat16" and re.fullmatch(_NO_BFLOAT16, device_kind):
        return None
    for pattern, half, single in _PEAK_TFLOPS:
        if re.fullmatch(pattern, device_kind):
            return (single if dtype == "float32" else half) * 1e12
    return None


class Clock:
    """Measures a logging interval from the host, without waiting for the device.

    Steps are dispatched ahead of the device, so a single step's time means nothing; over an interval
    that ends where the loop fetches metrics, the mean is right.
    """

    def __init__(
        self,
        batch_size: int,
        flops_per_step: float | None = None,
        peak: float | None = None,
        *,
        step: int = 0,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts the first interval at `step`.

        Args:
          batch_size: examples per step over all processes.
          flops_per_step: model FLOPs per step over all devices; None: unknown, no MFU.
          peak: FLOP/s of all devices together; None: unknown, no MFU.
          step: steps done so far.
          now: a monotonic clock, seconds.
        """
        self._batch_size = batch_size
        self._flops_per_step = flops_per_step
        self._peak = peak
        self._now = now
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts an interval at `step`, to leave out what came before: compilation, evaluation."""
        self._step = step
        self._began = self._now()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the seconds inside as waiting for data."""
        began = self._now()
        try:
            yield
        finally:
            self._waited += self._now() - began

    def interval(self, step: int) -> dict[str, float]:
        """Ends the interval at `step` and starts the next; empty when no step was made.

        Returns:
          examples_per_second, seconds_per_step, data_wait_seconds (in the whole interval) and, where
          FLOPs and peak are known, mfu (model FLOPs utilisation, a fraction).
        """
        steps = step - self._step
        seconds = max(self._now() - self._began, 1e-9)
        waited = self._waited
        self.restart(step)
        if steps <= 0:
            return {}
        scalars = {
            "examples_per_second": steps * self._batch_size / seconds,
            "seconds_per_step": seconds / steps,
            "data_wait_seconds": waited,
        }
        if self._flops_per_step and self._peak:
            scalars["mfu"] = steps * self._flops_per_step / seconds / self._peak
        return scalars


def format_duration(seconds: float) -> str:
    """The two largest units: 45s, 2m10s, 1h02m, 3d04h; "?" for what is no duration."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02d}h"


# How known scalars read in the progress line; others read "name value". The order is that of the line.
_SHOWN: dict[str, Callable[[float], str]] = {
    "loss": lambda x: f"loss {x:.4f}",
    "lr": lambda x: f"lr {x:.1e}",
    "grad_norm": lambda x: f"|g| {x:.3g}",
    "examples_per_second": lambda x: f"{x:.0f} ex/s" if x >= 10 else f"{x:.2g} ex/s",
    "data_wait_seconds": lambda x: f"data {x:.1f}s",
    "mfu": lambda x: f"mfu {100 * x:.0f}%",
}
_HIDDEN = ("seconds_per_step",)  # says the same as examples per second


def progress_line(step: int, total: int, scalars: Mapping[str, Any], eta: float | None = None) -> str:
    """One line for a terminal or a log file.

    Args:
      step: steps done.
      total: steps of the run.
      scalars: any; "loss_…" are shown as the parts of "loss", in parentheses.
      eta: seconds to the end; None: not shown.
    """
    width = max(6, len(str(total)))
    percent = 100 * step // max(total, 1)  # rounded down: 100 % is the end
    values = {name: _number(value) for name, value in scalars.items() if name not in _HIDDEN}
    known = {name: show(values[name]) for name, show in _SHOWN.items() if name in values}
    parts = {name.removeprefix("loss_"): x for name, x in values.items() if name.startswith("loss_")}
    loss = known.pop("loss", "")
    if parts:
        loss += " (" + " ".join(f"{name} {x:.3g}" for name, x in parts.items()) + ")"
    # What is not known by name, such as an accuracy, stands between the loss and the speed.
    others = [
        f"{name} {x:.4g}" for name, x in values.items() if name not in _SHOWN and not name.startswith("loss_")
    ]
    end = "" if eta is None else f"eta {format_duration(eta)}"
    fields = [f"step {step:>{width}}/{total} {percent:>3}%", loss.strip(), *others, *known.values(), end]
    return "  ".join(field for field in fields if field)
