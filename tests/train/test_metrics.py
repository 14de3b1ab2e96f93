"""Metrics: what reaches the files, and what a resume or a full disk does to them."""

import ast
import errno
import importlib.util
import inspect
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import record_writer

from amd_jax.train import metrics
from amd_jax.workdir import load_metrics


def _events(workdir: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(workdir), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return accumulator.Reload()


def _log(workdir: Path, resume_step: int, steps: list[int], offset: float = 0) -> None:
    writer = metrics.make_writer(str(workdir), resume_step=resume_step)
    for step in steps:
        writer.write_scalars(step, {"loss": step + offset})
    writer.close()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The messages that absl logs as warnings."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("absl")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_tensorflow_and_pytorch_are_not_imported(tmp_path: Path) -> None:
    """Installed ones, which here would raise, are left alone, and found by whoever asks for them later."""
    site = tmp_path / "site"
    for name in ("tensorflow", "torch"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(f"raise AssertionError('{name} was imported')\n")
    script = f"""
import sys
from amd_jax.train import metrics
writer = metrics.make_writer({str(tmp_path / "run")!r}, resume_step=0)
writer.write_scalars(1, {{"loss": 0.5}})
writer.close()
assert not {{"tensorflow", "torch"}} & set(sys.modules)
try:
    import torch
except AssertionError as error:
    assert "torch was imported" in str(error)
else:
    raise SystemExit("the installed torch was not found")
"""
    root = Path(metrics.__file__).parents[1]
    path = os.pathsep.join([str(site), str(root)])
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert load_metrics(str(tmp_path / "run")) == [{"step": 1, "loss": 0.5}]


def test_the_writer_is_called_as_clus_are() -> None:
    """Its public methods are those of clu's MetricWriter, parameter by parameter."""
    package = importlib.util.find_spec("clu.metric_writers")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).with_name("interface.py").read_text()  # importing it imports TensorFlow
    (interface,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    theirs = {
        node.name: [argument.arg for argument in node.args.args]
        for node in interface.body
        if isinstance(node, ast.FunctionDef)
    }
    ours = {
        name: list(inspect.signature(method).parameters)
        for name, method in vars(metrics.Writer).items()
        if not name.startswith("_")
    }
    assert ours == {name: theirs[name] for name in ours}
    assert {"write_scalars", "write_images", "write_texts", "write_hparams", "flush", "close"} <= ours.keys()


def test_scalars_reach_both_files(tmp_path: Path) -> None:
    writer = metrics.make_writer(str(tmp_path), resume_step=0)
    writer.write_scalars(
        3,
        {
            "loss": jnp.float32(0.1),
            "half": jnp.bfloat16(0.5),
            "double": 1830.123456789,
            "count": np.int32(7),
            "nan": np.float32("nan"),
            "inf": -float("inf"),
            "huge": 1e300,
        },
    )
    # Without a flush: the line is there as soon as the call returns.
    assert load_metrics(str(tmp_path)) == [
        {
            "step": 3,
            "loss": 0.1,
            "half": 0.5,
            "double": 1830.1234,
            "count": 7,
            "nan": None,
            "inf": None,
            "huge": 1e300,
        }
    ]
    writer.flush()
    (event,) = _events(tmp_path).Scalars("loss")
    assert event.step == 3
    assert event.value == pytest.approx(0.1)
    assert event.wall_time > 1.6e9
    assert np.isnan(_events(tmp_path).Scalars("nan")[0].value)
    writer.close()
    writer.close()


def test_json_floats_round_trip_as_float32() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    shown = [json.dumps(metrics._json_number(float(value))) for value in values]
    np.testing.assert_array_equal(np.array([json.loads(text) for text in shown], np.float32), values)
    assert max(map(len, shown)) <= 16


def test_images_texts_and_hparams(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    writer = metrics.make_writer(str(tmp_path), resume_step=0)
    writer.write_images(4, {"masks": pixels, "one": pixels[:1], "grey": pixels[0, ..., :1]})
    writer.write_texts(4, {"note": "häuser"})
    writer.write_hparams({"optim.lr": 1e-3, "method": "amd"})
    with pytest.raises(ValueError, match=r"'float'.*float64"):
        writer.write_images(4, {"float": pixels / 255})
    writer.close()

    events = _events(tmp_path)
    assert sorted(events.Tags()["images"]) == ["grey", "masks/0", "masks/1", "one"]
    (second,) = events.Images("masks/1")
    assert (second.step, second.width, second.height) == (4, 7, 5)
    decoded = np.asarray(Image.open(io.BytesIO(second.encoded_image_string)))
    np.testing.assert_array_equal(decoded, pixels[1])
    grey = Image.open(io.BytesIO(events.Images("grey")[0].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(grey), pixels[0, ..., :1].repeat(3, axis=-1))

    def text(name: str) -> str:
        assert events.SummaryMetadata(f"{name}/text_summary").plugin_data.plugin_name == "text"
        (event,) = events.Tensors(f"{name}/text_summary")
        return event.tensor_proto.string_val[0].decode()

    assert text("note") == "häuser"
    assert "| optim.lr | `0.001` |" in text("hparams")


def test_resume_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    _log(tmp_path, 0, [10, 20, 30])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'not json\n[1]\n{"step": 5, "lo')  # killed while writing
    _log(tmp_path, 20, [30, 40], offset=0.5)
    expected = [(10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5)]
    assert [(line["step"], line["loss"]) for line in load_metrics(str(tmp_path))] == expected
    assert [(event.step, event.value) for event in _events(tmp_path).Scalars("loss")] == expected
    assert not list(tmp_path.glob("*.tmp"))


def test_a_whole_line_without_its_newline_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    _log(tmp_path, 2, [3])
    assert [line["step"] for line in load_metrics(str(tmp_path))] == [1, 3]


def test_a_new_run_starts_afresh(tmp_path: Path) -> None:
    _log(tmp_path, 0, [0, 10, 20])
    _log(tmp_path, 0, [5])
    assert [line["step"] for line in load_metrics(str(tmp_path))] == [5]
    assert [event.step for event in _events(tmp_path).Scalars("loss")] == [5]


def test_an_interrupted_rewrite_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    _log(tmp_path, 0, [10, 20])
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        writer = metrics.make_writer(str(tmp_path), resume_step=10)
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert len(warnings) == 1


class _Disk(io.FileIO):
    """A file on a disk with `room` bytes left; like a real one it takes what still fits."""

    room = 10**9

    def write(self, data: Any) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, warnings: list[str]) -> None:
    writer = metrics.make_writer(str(tmp_path), resume_step=0)
    disk = writer._lines = _Disk(tmp_path / "metrics.jsonl", "a")
    writer.write_scalars(1, {"loss": 1.0})
    disk.room = 8
    writer.write_scalars(2, {"loss": 2.0})  # fits in part
    writer.write_scalars(3, {"loss": 3.0})  # not at all
    disk.room = 10**9
    writer.write_scalars(4, {"loss": 4.0})
    writer.close()
    assert [line["step"] for line in load_metrics(str(tmp_path))] == [1, 4]
    assert len(warnings) == 1
    assert "metrics.jsonl" in warnings[0]
    assert len(_events(tmp_path).Scalars("loss")) == 4  # the other output is not touched


@pytest.mark.parametrize("fails", ["open", "write", "flush"])
def test_tensorboard_without_room_leaves_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str], fails: str
) -> None:
    """Where no file can be made, where no record fits, and on a disk that is full when they are flushed."""

    def no_room(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "open":
        monkeypatch.setattr(record_writer, "open_file", no_room)
    elif fails == "flush":
        full = _Disk(tmp_path / "events", "w")
        full.room = 0
        monkeypatch.setattr(record_writer, "open_file", lambda path: io.BufferedWriter(full))
    writer = metrics.make_writer(str(tmp_path), resume_step=0)
    if fails == "write":
        monkeypatch.setattr(record_writer.RecordWriter, "write", no_room)
    for step in range(3):
        writer.write_scalars(step, {"loss": 0.0})
        writer.flush()
    writer.write_texts(3, {"note": "late"})
    writer.close()
    assert [line["step"] for line in load_metrics(str(tmp_path))] == [0, 1, 2]
    assert len(warnings) == 1
    assert "TensorBoard" in warnings[0]


def test_events_are_on_disk_soon_after_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run, which closes nothing, loses the events of its last seconds only."""
    clock = iter(range(0, 10**6, metrics.FLUSH_SECONDS + 1))
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    writer = metrics.make_writer(str(tmp_path), resume_step=0)
    writer.write_scalars(1, {"loss": 1.0})
    assert [event.step for event in _events(tmp_path).Scalars("loss")] == [1]
    writer.close()
