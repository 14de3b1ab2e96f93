"""Checkpoints in a bucket are what those on a disk are: whole or not there, checked, newest kept."""

from pathlib import Path

import pytest

from amd_jax import buckets, checksums
from amd_jax.errors import RunError
from amd_jax.train.checkpoint import Checkpoints
from amd_jax.workdir import FOLDER, load_params, saved_steps
from tests.gcs import Storage
from tests.runs import assert_same
from tests.train.test_checkpoint import abstract_on_one_device, garble, state, two_steps


def steps_in(url: str, *steps: int, keep: int = 3) -> Path:
    """A run with these steps; where its checkpoints are."""
    checkpoints = Checkpoints(url, keep)
    for step in steps:
        checkpoints.save(state(step), step, {"step": step})
    checkpoints.close()
    return buckets.place(url) / FOLDER


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def largest(step: Path, part: str = "params") -> str:
    """The name of the largest file of a part."""
    found = {name: stored.size for name, stored in buckets.listing(step / part).items()}
    return f"{part}/{max(found, key=lambda name: found[name])}"


def damage_one_byte(step: Path, part: str = "params") -> str:
    """Of the largest file of a part; its name."""
    name = largest(step, part)
    content = bytearray((step / name).read_bytes())
    content[len(content) // 2] ^= 1
    (step / name).write_bytes(bytes(content))
    return name


def test_the_newest_are_kept_and_go_on_as_from_a_disk(bucket: str) -> None:
    folder = steps_in(f"{bucket}/run", 1, 2, 3, keep=2)
    assert names(folder) == ["2", "3"]
    checkpoints = Checkpoints(f"{bucket}/run", keep=2)
    assert checkpoints.newest_whole(set_aside=True) == 3
    restored, position = checkpoints.restore(abstract_on_one_device(), 3)
    assert_same(restored, state(3))
    assert position == {"step": 3}
    assert_same(load_params(f"{bucket}/run", 2)[0], state(2).params)


def test_files_are_watched_without_being_read(bucket: str, storage: Storage) -> None:
    step = steps_in(f"{bucket}/run", 1) / "1"
    before = storage.mark()
    assert checksums.exist(step)
    assert checksums.damage(step) == ""
    asked = storage.requests[before : storage.mark()]
    reads = [line for line in asked if "alt=media" in line or "/download/" in line]
    assert len(reads) == 1
    assert checksums.FILE in reads[0]
    assert len(asked) < len(buckets.listing(step))


def test_what_is_changed_or_cut_or_missing_is_named(bucket: str) -> None:
    step = steps_in(f"{bucket}/run", 1) / "1"
    name = damage_one_byte(step)
    assert checksums.damage(step) == f"{name} has other contents than were written"
    assert checksums.damage(step, "optimizer") == ""
    (step / name).write_bytes(b"short")
    assert checksums.damage(step, "params").startswith(f"{name} has 5 of")
    (step / name).unlink()
    assert checksums.damage(step) == f"{name} is missing"


def test_checksums_hold_for_a_copy_out_of_a_bucket_and_into_one(bucket: str, tmp_path: Path) -> None:
    files = buckets.filesystem()
    steps_in(f"{bucket}/run", 1)
    files.get(f"{bucket}/run", str(tmp_path / "run"), recursive=True)
    here = tmp_path / "run" / FOLDER / "1"
    assert checksums.damage(here) == ""
    name = garble(here)
    assert checksums.damage(here) == f"{name} has other contents than were written"

    folder = two_steps(tmp_path / "disk")
    for name in ("1", "2"):  # as `gcloud storage cp` does it
        files.put(str(folder / name), f"{bucket}/copy/{FOLDER}/{name}", recursive=True)
    copied = buckets.place(f"{bucket}/copy") / FOLDER
    assert saved_steps(copied) == [1, 2]
    assert checksums.damage(copied / "2") == ""
    name = damage_one_byte(copied / "2")
    assert checksums.damage(copied / "2") == f"{name} has other contents than were written"


def test_a_damaged_step_is_kept_aside_and_can_be_saved_again(
    bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = steps_in(f"{bucket}/run", 1, 2)
    name = damage_one_byte(folder / "2", "optimizer")
    checkpoints = Checkpoints(f"{bucket}/run", keep=3)
    assert checkpoints.newest_whole(set_aside=False) == 1
    assert names(folder) == ["1", "2"]
    assert checkpoints.newest_whole(set_aside=True) == 1
    assert name in caplog.text
    assert f"{folder}/2.damaged" in caplog.text
    assert "Traceback" not in caplog.text
    checkpoints.save(state(5), 2, {})
    checkpoints.close()
    assert names(folder) == ["1", "2", "2.damaged"]
    assert_same(load_params(f"{bucket}/run")[0], state(5).params)

    damage_one_byte(folder / "2")
    with pytest.raises(RunError, match="step 1 is whole"):
        load_params(f"{bucket}/run")


def test_a_save_that_was_killed_is_no_checkpoint_and_is_cleared_away(bucket: str) -> None:
    """All of it is there but the last file."""
    folder = steps_in(f"{bucket}/run", 1, 2, 3)
    for step in ("2", "3"):
        (folder / step / "commit_success.txt").unlink()
    checkpoints = Checkpoints(f"{bucket}/run", keep=3)
    assert checkpoints.latest() == checkpoints.newest_whole(set_aside=True) == 1
    assert load_params(f"{bucket}/run")[1] == 1
    checkpoints.save(state(7), 3, {})
    checkpoints.close()
    assert names(folder) == ["1", "3"]
    assert_same(load_params(f"{bucket}/run")[0], state(7).params)


def test_a_bucket_that_is_gone_for_a_while_costs_one_save(
    bucket: str, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(f"{bucket}/run", keep=1)
    checkpoints.save(state(1), 1, {})
    checkpoints.wait()
    with storage.without(bucket):
        checkpoints.save(state(2), 2, {})
        checkpoints.wait()
    assert "step 2 could not be saved" in checkpoints.unsaved
    assert f"in {bucket}/run/{FOLDER}" in checkpoints.unsaved
    assert checkpoints.unsaved in caplog.text
    assert "Traceback" not in caplog.text
    assert checkpoints.latest() == 1
    checkpoints.save(state(3), 3, {})
    checkpoints.close()
    assert checkpoints.unsaved == ""
    # What was being written of step 2 may still arrive; nobody takes it for a step.
    assert saved_steps(buckets.place(f"{bucket}/run") / FOLDER) == [3]
    assert_same(load_params(f"{bucket}/run")[0], state(3).params)
