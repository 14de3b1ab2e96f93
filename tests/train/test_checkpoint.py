"""Checkpoints: whole or not there, on any mesh, newest kept."""

import errno
import os
from pathlib import Path

import jax
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amd_jax import checksums, sharding
from amd_jax.config import default
from amd_jax.errors import RunError
from amd_jax.steps.train_state import TrainState
from amd_jax.train.checkpoint import Checkpoints
from amd_jax.trees import path_name
from amd_jax.workdir import half_written, is_run, load_config, load_params, save_config
from tests.disks import enlarge, small_disk
from tests.runs import assert_same


def state(scale: float = 1.0) -> TrainState:
    """A state with one sharded kernel."""
    kernel = jax.random.normal(jax.random.key(0), (1, 16, 8)) * scale
    return TrainState.create({"mlp": {"fc1": {"kernel": kernel}}}, optax.adamw(1e-3))


def place(tree: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    """The state on a mesh, by the rules."""
    return jax.device_put(tree, sharding.shardings(tree, mesh, path_name))


def abstract(tree: TrainState) -> TrainState:
    """Shapes and shardings."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


@pytest.mark.parametrize(("before", "after"), [((2, 4, 1), (1, 2, 4)), ((8, 1, 1), (1, 8, 1))])
def test_a_checkpoint_is_restored_onto_another_mesh(
    before: tuple[int, int, int], after: tuple[int, int, int], tmp_path: Path
) -> None:
    saved = place(state(), sharding.make_mesh(*before))
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(saved, 3, {"examples": 7})
    checkpoints.wait()
    target = place(state(0.0), sharding.make_mesh(*after))
    restored, position = checkpoints.restore(abstract(target), 3)
    checkpoints.close()
    assert_same(restored, saved)
    assert position == {"examples": 7}
    wanted = jax.tree.map(lambda x: x.sharding, target)
    assert jax.tree.map(lambda x: x.sharding, restored) == wanted
    kernel = restored.params["mlp"]["fc1"]["kernel"]
    assert kernel.sharding.is_equivalent_to(
        NamedSharding(sharding.make_mesh(*after), P(None, "fsdp", "tensor")), kernel.ndim
    )


def test_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(state(), step, {})
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


def test_an_unfinished_directory_is_not_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(state(), 1, {})
    checkpoints.close()
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir()
    assert Checkpoints(str(tmp_path), keep=2).latest() == 1
    assert load_params(str(tmp_path))[1] == 1


def test_params_alone_are_loaded_without_knowing_the_optimiser(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    for step in (1, 2):
        checkpoints.save(state(step), step, {})
    checkpoints.close()
    assert_same(load_params(str(tmp_path))[0], state(2).params)
    assert_same(load_params(str(tmp_path), 1)[0], state(1).params)


def test_a_run_is_loaded_as_it_is_scored_by_the_running_mean_where_there_is_one(tmp_path: Path) -> None:
    saved = state(2)
    saved = saved.replace(ema=jax.tree.map(lambda x: x / 2, saved.params))
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(saved, 1, {})
    checkpoints.wait()
    assert_same(load_params(str(tmp_path))[0], saved.ema)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    assert_same(checkpoints.restore(abstract(place(saved, mesh)), 1)[0], saved)


def test_a_missing_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint there"):
        load_params(str(tmp_path))
    with pytest.raises(RunError, match="cannot read the config"):
        load_config(str(tmp_path))


def test_the_resolved_config_is_saved(tmp_path: Path) -> None:
    assert not is_run(str(tmp_path))
    config = default()
    config.data.image_size = 64
    save_config(str(tmp_path), config)
    again = default()
    again.update(load_config(str(tmp_path)))
    assert again.data.image_size == 64
    assert tuple(again.data.mean) == tuple(config.data.mean)


def two_steps(folder: Path) -> Path:
    """A run with steps 1 and 2; where its checkpoints are."""
    checkpoints = Checkpoints(str(folder), keep=3)
    for step in (1, 2):
        checkpoints.save(state(step), step, {"step": step})
    checkpoints.close()
    return folder / "checkpoints"


def garble(step: Path, name: str = "params") -> str:
    """Changes one byte in the largest file of a part; its name."""
    file = max((p for p in (step / name).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return str(file.relative_to(step))


def abstract_on_one_device() -> TrainState:
    return abstract(place(state(), sharding.make_mesh(devices=jax.devices()[:1])))


def test_every_file_of_a_step_is_watched(tmp_path: Path) -> None:
    """But for those that a step can do without."""
    step = two_steps(tmp_path) / "2"
    for file in [p for p in step.rglob("*") if p.is_file() and p.parent != step]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert checksums.damage(step).startswith(str(file.relative_to(step)))
        file.unlink()
        assert checksums.damage(step) == f"{file.relative_to(step)} is missing"
        file.write_bytes(content)
    for file in [p for p in step.iterdir() if p.is_file()]:
        file.unlink()
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    assert checkpoints.newest_whole(set_aside=True) == 2
    assert_same(checkpoints.restore(abstract_on_one_device(), 2)[0], state(2))


@pytest.mark.parametrize("part", ["params", "optimizer", "data"])
def test_a_damaged_newest_step_is_named_and_kept_aside_and_can_be_saved_again(
    part: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = two_steps(tmp_path)
    name = garble(folder / "2", part)
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    assert checkpoints.newest_whole(set_aside=True) == 1
    assert name in caplog.text
    assert str(folder / "2.damaged") in caplog.text
    restored, position = checkpoints.restore(abstract_on_one_device(), 1)
    assert_same(restored, state(1))
    assert position == {"step": 1}
    checkpoints.save(state(5), 2, {})
    checkpoints.close()
    assert checkpoints.latest() == 2
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2", "2.damaged"]
    assert_same(load_params(str(tmp_path))[0], state(5).params)
    garble(folder / "2")
    Checkpoints(str(tmp_path), keep=3).newest_whole(set_aside=True)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2.damaged", "2.damaged-2"]


def test_where_all_are_damaged_none_is_touched(tmp_path: Path) -> None:
    folder = two_steps(tmp_path)
    names = [garble(folder / step) for step in ("1", "2")]
    with pytest.raises(RunError, match="every checkpoint is damaged") as caught:
        Checkpoints(str(tmp_path), keep=3).newest_whole(set_aside=True)
    assert all(name in str(caught.value) for name in names)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_an_evaluation_leaves_a_damaged_step_where_it_is(tmp_path: Path) -> None:
    folder = two_steps(tmp_path)
    garble(folder / "2")
    assert Checkpoints(str(tmp_path), keep=3).newest_whole(set_aside=False) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_somebody_elses_damaged_step_is_named_with_one_that_is_whole(tmp_path: Path) -> None:
    folder = two_steps(tmp_path)
    name = garble(folder / "2")
    with pytest.raises(RunError, match="step 1 is whole") as caught:
        load_params(str(tmp_path))
    assert name in str(caught.value)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]
    assert_same(load_params(str(tmp_path), 1)[0], state(1).params)
    garble(folder / "1")
    with pytest.raises(RunError, match="no other step of the run is whole"):
        load_params(str(tmp_path))


def test_other_shapes_are_not_taken_for_damage(tmp_path: Path) -> None:
    folder = two_steps(tmp_path)
    other = TrainState.create({"mlp": {"fc1": {"kernel": jax.numpy.zeros((1, 16, 9))}}}, optax.adamw(1e-3))
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    assert checkpoints.newest_whole(set_aside=True) == 2
    target = abstract(place(other, sharding.make_mesh(devices=jax.devices()[:1])))
    with pytest.raises(RunError, match="does not fit this config") as caught:
        checkpoints.restore(target, 2)
    assert "damaged" not in str(caught.value)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_a_checkpoint_without_checksums_is_read_and_its_damage_is_one_line(tmp_path: Path) -> None:
    folder = two_steps(tmp_path)
    (folder / "2" / checksums.FILE).unlink()
    assert_same(load_params(str(tmp_path))[0], state(2).params)
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    assert_same(checkpoints.restore(abstract_on_one_device(), 2)[0], state(2))
    (folder / "2" / "params" / "manifest.ocdbt").unlink()
    with pytest.raises(RunError, match="step 1 is whole"):
        load_params(str(tmp_path))
    with pytest.raises(RunError, match="or is damaged"):
        checkpoints.restore(abstract_on_one_device(), 2)


def large(scale: float) -> TrainState:
    """A state of 1.2 MB that does not compress."""
    kernel = jax.random.normal(jax.random.key(0), (1, 1000, 100)) * scale
    params = {"mlp": {"fc1": {"kernel": kernel}}}
    return TrainState(jax.numpy.int32(0), params, {"mu": params, "nu": params})


def test_a_disk_that_is_seen_to_be_too_small_keeps_the_last_step_and_the_next_save_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 2000) as disk:
        checkpoints = Checkpoints(str(disk), keep=1)
        save_what_finds_no_room(checkpoints, caplog)
        assert [p.name for p in (disk / "checkpoints").iterdir()] == ["1"]
        enlarge(disk, 9000)
        save_and_close(checkpoints, 3)


def test_a_disk_that_is_full_halfway_keeps_the_last_step_and_the_next_save_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads of tensorstore may go on for a moment and make files of the step again; those go, too."""
    with small_disk(tmp_path / "disk", 2000) as disk:
        checkpoints = Checkpoints(str(disk), keep=1)
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "_free", lambda self: 10**12)
            save_what_finds_no_room(checkpoints, caplog)
        folder = checkpoints.folder
        assert set(folder.iterdir()) - set(half_written(folder)) == {folder / "1"}
        enlarge(disk, 9000)
        written_late(folder, 2, 7 << 20)  # leaves too little room until it is gone
        save_and_close(checkpoints, 3)


def test_what_a_failed_save_writes_while_the_next_is_under_way_goes_when_a_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checksums.write

    def slow(folder: Path) -> None:
        written_late(folder.parent, 1, 1)
        write(folder)

    checkpoints = Checkpoints(str(tmp_path), keep=1)
    monkeypatch.setattr(checksums, "write", no_room)
    checkpoints.save(large(1), 1, {})
    checkpoints.wait()
    assert checkpoints.unsaved
    monkeypatch.setattr(checksums, "write", slow)
    save_and_close(checkpoints, 2)


def save_what_finds_no_room(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    """Step 1 finds room, step 2 none beside it."""
    checkpoints.save(large(1), 1, {})
    checkpoints.save(large(2), 2, {})
    checkpoints.wait()
    assert "step 2 could not be saved (No space left on device)" in checkpoints.unsaved
    assert "a checkpoint takes more than 1.2 MB" in checkpoints.unsaved
    assert checkpoints.unsaved in caplog.text
    assert "Traceback" not in caplog.text


def no_room(folder: Path) -> None:
    """In the place of `checksums.write`: the disk is full."""
    (folder / checksums.FILE).write_text("{")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def written_late(folder: Path, step: int, size: int) -> None:
    late = folder / f"{step}.orbax-checkpoint-tmp" / "params"
    late.mkdir(parents=True, exist_ok=True)
    (late / "late").write_bytes(bytes(size))


def save_and_close(checkpoints: Checkpoints, step: int) -> None:
    """Saves, and finds that step alone."""
    checkpoints.save(large(step), step, {})
    checkpoints.close()
    assert checkpoints.unsaved == ""
    assert [p.name for p in checkpoints.folder.iterdir()] == [str(step)]
    assert_same(load_params(str(checkpoints.folder.parent))[0], large(step).params)


def test_a_write_that_fails_leaves_nothing_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last file of a step finds no room."""
    folder = two_steps(tmp_path)
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksums, "write", no_room)
        checkpoints.save(state(3), 3, {})
        checkpoints.wait()
    assert "step 3 could not be saved (No space left on device)" in caplog.text
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]  # though only one is to be kept
    checkpoints.save(state(4), 4, {})
    checkpoints.close()
    assert checkpoints.unsaved == ""
    assert [p.name for p in folder.iterdir()] == ["4"]
