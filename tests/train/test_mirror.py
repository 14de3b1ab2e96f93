"""The local side of a workdir in a bucket: nothing is lost, and nothing is sent twice."""

import shutil
from pathlib import Path

import pytest

from amd_jax import buckets
from amd_jax.train import metrics
from amd_jax.train.mirror import Mirror
from amd_jax.workdir import METRICS, load_metrics
from tests.gcs import Storage


def test_what_has_changed_is_sent_and_the_folder_goes_with_the_run(bucket: str, storage: Storage) -> None:
    where = buckets.place(f"{bucket}/run")
    mirror = Mirror(where, ())
    (mirror.folder / "pictures").mkdir()
    (mirror.folder / "pictures" / "a.png").write_bytes(b"a")
    (mirror.folder / "lines").write_text("one\n")
    mirror.send()
    with (mirror.folder / "lines").open("a") as lines:
        lines.write("two\n")
    before = storage.mark()
    mirror.send()
    uploads = [line for line in storage.requests[before : storage.mark()] if "POST /upload" in line]
    assert len(uploads) == 1
    mirror.close()
    assert not mirror.folder.exists()
    assert (where / "lines").read_text() == "one\ntwo\n"
    assert (where / "pictures" / "a.png").read_bytes() == b"a"


def test_metrics_of_a_continued_run_hold_each_step_once(bucket: str) -> None:
    where = f"{bucket}/run"
    for resume_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        mirror = Mirror(buckets.place(where), (METRICS,))
        writer = metrics.make_writer(str(mirror.folder), resume_step=resume_step)
        for step in steps:
            writer.write_scalars(step, {"loss": step + resume_step})
        writer.close()
        mirror.close()
    lines = [{"step": 1, "loss": 1}, {"step": 2, "loss": 2}, {"step": 3, "loss": 5}, {"step": 4, "loss": 6}]
    assert load_metrics(where) == lines


def test_what_cannot_be_sent_is_told_once_and_sent_later_or_kept(
    bucket: str, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    mirrors = [Mirror(buckets.place(f"{bucket}/{name}"), ()) for name in ("later", "never")]
    for mirror in mirrors:
        (mirror.folder / "lines").write_text("one\n")
    with storage.without(bucket):
        for mirror in (*mirrors, *mirrors):
            mirror.send()
        mirrors[1].close()
    assert caplog.text.count("metrics and pictures are not uploaded") == 2
    assert f"is kept in {mirrors[1].folder}" in caplog.text
    assert (mirrors[1].folder / "lines").read_text() == "one\n"
    shutil.rmtree(mirrors[1].folder)
    mirrors[0].close()
    assert (buckets.place(f"{bucket}/later") / "lines").read_text() == "one\n"
    assert not Path(mirrors[0].folder).exists()
