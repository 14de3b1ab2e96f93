"""What a checkpoint would hold, and what its leaves are called."""

import jax
import jax.numpy as jnp
import optax

from amd_jax.steps.train_state import TrainState
from amd_jax.trees import path_name

PARAMS = {"encoder": {"norm": {"scale": jnp.ones(3)}}, "head": [jnp.ones(2)]}


def names(tree) -> list[str]:
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def test_paths_are_joined_by_slashes_whatever_the_containers_are() -> None:
    assert names(PARAMS) == ["encoder/norm/scale", "head/0"]


def test_a_state_names_its_parameters_and_their_moments_alike() -> None:
    state = TrainState.create(PARAMS, optax.adam(1e-3))
    assert "params/encoder/norm/scale" in names(state)
    for moment in ("mu", "nu"):
        assert any(name.endswith(f"{moment}/encoder/norm/scale") for name in names(state))


def test_a_new_state_is_before_the_first_update() -> None:
    state = TrainState.create(PARAMS, optax.adam(1e-3))
    assert state.step.dtype == jnp.int32
    assert state.step == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(state.opt_state))


def test_a_state_is_step_parameters_optimiser_and_their_mean_and_nothing_else() -> None:
    """The teacher in particular is not part of it, and so not of the checkpoint."""
    assert list(TrainState.__dataclass_fields__) == ["step", "params", "opt_state", "ema"]
