"""Checkpoints: whole or not there, on any mesh, newest kept."""

from pathlib import Path

import jax
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amd_jax import sharding
from amd_jax.checkpoint import Checkpoints, is_run, load_config, load_params, save_config
from amd_jax.config import ConfigError, default
from amd_jax.train_state import TrainState, path_name
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
    with pytest.raises(ConfigError, match="no checkpoint there"):
        load_params(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot read the config"):
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
