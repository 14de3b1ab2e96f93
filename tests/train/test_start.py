"""What a student starts from: the file's parameters, and drawn ones where it has none."""

from pathlib import Path

import jax
import numpy as np
import pytest

from amd_jax import sharding
from amd_jax.train import program, setup
from amd_jax.train.weights import load_start
from amd_jax.trees import flatten, path_name
from configs import finetune_vitb_in1k
from tests.runs import assert_same, tiny, untrained


@pytest.mark.slow
def test_new_parameters_are_drawn_as_without_a_file_and_the_others_are_the_files(tmp_path: Path) -> None:
    """To the bit, shared over eight devices; the running mean starts as a copy that is no second owner."""
    file = flatten(untrained(tiny(method="mae"), tmp_path / "mae"))
    config = finetune_vitb_in1k.get_config("smoke")
    config.finetune.ema = 0.9
    run = program.build(config, sharding.make_mesh(2, 2, 2), examples=10_000, classes=10)
    assert load_start(config, run.task) == {}
    without = setup.draw(run.init_state, config.seed, run.state, {})

    config.student.weights = str(tmp_path / "mae")
    start = load_start(config, run.task)
    given = sharding.place(start, sharding.shardings(start, run.mesh, path_name))
    state = setup.draw(run.init_state, config.seed, run.state, given)
    assert jax.tree.map(lambda x: x.sharding, state) == program.where(run.state)
    new, filled, drawn = flatten(state.params), flatten(start), flatten(without.params)
    news = {"head/kernel", "head/bias", "fc_norm/scale", "fc_norm/bias"}
    assert drawn.keys() - filled.keys() == news
    assert_same(new, drawn | filled)
    name = "encoder/blocks/layers/mlp/fc1/kernel"
    np.testing.assert_array_equal(filled[name], file[name])
    assert_same(state.ema, state.params)
    assert_same(state.opt_state, without.opt_state)
    for mean, own in zip(jax.tree.leaves(state.ema), jax.tree.leaves(state.params), strict=True):
        mean, own = (x.addressable_shards[0].data.unsafe_buffer_pointer() for x in (mean, own))
        assert mean != own
