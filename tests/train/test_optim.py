"""Decay by path, the schedule's values, clipping, and AdamW against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from amd_jax.config import default
from amd_jax.errors import ConfigError
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train import optim
from amd_jax.trees import path_name
from configs import vitb_in1k


def test_vectors_and_tokens_do_not_decay_and_matrices_do() -> None:
    """The released recipes' rule, for an encoder that also learns its positions."""
    config = vitb_in1k.get_config("smoke")
    config.student.positions = "learned"
    params = jax.eval_shape(Pretraining.from_config(config).init, jax.random.key(0))
    decayed, spared = set(), set()
    for path, decays in jax.tree_util.tree_leaves_with_path(optim.decay_mask(params)):
        (decayed if decays else spared).add(path_name(path).rsplit("/", 1)[-1])
    assert decayed == {"kernel", "qkv"}
    assert spared == {
        *("bias", "q_bias", "k_bias", "v_bias", "scale"),
        *("cls_token", "mask_token", "positions"),
    }


def schedule_config(**changes: float) -> ConfigDict:
    """Batch 512, so that rates are twice those given per 256."""
    config = default()
    config.batch_size = 512
    config.optim.base_lr, config.optim.warmup_lr, config.optim.min_lr = 1e-3, 1e-5, 1e-4
    config.optim.update(changes)
    return config


def test_the_rate_warms_up_linearly_and_decays_by_a_cosine_scaled_by_batch_over_256() -> None:
    rate = optim.schedule(schedule_config(warmup_steps=20), total_steps=120, steps_per_epoch=50.0)

    def cosine(step: int) -> float:
        return 2 * (1e-4 + (1e-3 - 1e-4) * 0.5 * (1 + np.cos(np.pi * (step - 20) / 100)))

    expected = {0: 2e-5, 10: 2 * (1e-5 + 1e-3) / 2, 20: 2e-3, 45: cosine(45), 70: 2 * 5.5e-4, 120: 2e-4}
    for step, value in expected.items():
        assert rate(step) == pytest.approx(value, rel=1e-4), step
    assert rate(500) == pytest.approx(2e-4)


def test_the_warm_up_is_given_in_epochs_or_in_steps_and_steps_win() -> None:
    by_epochs = optim.schedule(schedule_config(warmup_epochs=0.5), 120, 40.0)
    by_steps = optim.schedule(schedule_config(warmup_epochs=0.5, warmup_steps=30), 120, 40.0)
    assert int(np.argmax([by_epochs(s) for s in range(121)])) == 20
    assert int(np.argmax([by_steps(s) for s in range(121)])) == 30


def test_without_a_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert optim.schedule(schedule_config(), 120, 40.0)(0) == pytest.approx(2e-3)


def test_repeated_samples_do_not_raise_the_rate() -> None:
    config = schedule_config()
    config.data.repeats = 4
    assert optim.schedule(config, 120, 40.0)(0) == pytest.approx(2e-3)


def test_a_run_that_is_all_warm_up_ends_at_its_peak() -> None:
    rate = optim.schedule(schedule_config(warmup_steps=10), 10, 40.0)
    values = [float(rate(step)) for step in range(11)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("warmup", "words"),
    [
        ({"warmup_steps": 11}, "optim.warmup_steps=11: 11 steps .* longer than the run of 10"),
        ({"warmup_epochs": 0.5}, "optim.warmup_epochs=0.5: 20 steps .* longer than the run of 10"),
    ],
)
def test_a_warm_up_longer_than_the_run_is_refused(warmup: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        optim.schedule(schedule_config(**warmup), 10, 40.0)


PARAMS = {
    "encoder": {"kernel": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.array([0.5, -1.0])},
    "decoder": {"mask_token": jnp.array([0.3, 0.7])},
    "generator_0": {"mask_token": jnp.array([2.0, -0.1]), "kernel": jnp.array([[1.5]])},
}


def gradients(seed: int):
    """Random gradients for PARAMS."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS)


def optim_config(**changes: float) -> ConfigDict:
    config = default()
    config.optim.update({"weight_decay": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-3, **changes})
    return config


def train(config: ConfigDict, grads, rate: float = 0.01):
    """PARAMS after an update with each of `grads`."""
    optimizer = optim.optimizer(config, lambda step: rate)
    params, state = PARAMS, optimizer.init(PARAMS)
    for gradient in grads:
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def adamw(p: np.ndarray, grads: list[np.ndarray], decay: float, rate: float = 0.01) -> np.ndarray:
    """AdamW by its definition (arXiv 1711.05101), betas 0.8 and 0.9, epsilon 1e-3."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        step = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        p = p - rate * (step + decay * p)
    return p


def test_three_steps_are_adamw_with_decay_on_kernels_only() -> None:
    grads = [gradients(seed) for seed in range(3)]
    params = train(optim_config(), grads)

    def check(path, before, after, *series) -> None:
        decay = 0.1 if path_name(path).endswith("kernel") else 0.0
        expected = adamw(np.asarray(before, np.float64), [np.asarray(g, np.float64) for g in series], decay)
        np.testing.assert_allclose(after, expected, rtol=1e-6)

    jax.tree_util.tree_map_with_path(check, PARAMS, params, *grads)


def test_gradients_are_clipped_by_their_global_norm_before_adam() -> None:
    """One large step and one small: only the large one shrinks."""
    large, small = jax.tree.map(lambda g: 50 * g, gradients(0)), jax.tree.map(lambda g: g / 50, gradients(1))
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(large)))
    by_hand = jax.tree.map(lambda g: g * 0.5 / norm, large)
    clipped = train(optim_config(clip=0.5), [large, small])
    expected = train(optim_config(), [by_hand, small])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), clipped, expected)
    unclipped = train(optim_config(clip=0.0), [large, small])
    assert abs(unclipped["encoder"]["kernel"] - clipped["encoder"]["kernel"]).max() > 1e-3


def test_frozen_generator_tokens_stay_as_drawn_and_everything_else_trains_as_before() -> None:
    """Parity with the released AMD code, whose generators' mask tokens are never optimised."""
    grads = [gradients(seed) for seed in range(2)]
    config = optim_config()
    trained = train(config, grads)
    config.align.train_mask_tokens = False
    frozen = train(config, grads)
    np.testing.assert_array_equal(frozen["generator_0"]["mask_token"], PARAMS["generator_0"]["mask_token"])
    assert (trained["generator_0"]["mask_token"] != PARAMS["generator_0"]["mask_token"]).all()
    trained["generator_0"]["mask_token"] = frozen["generator_0"]["mask_token"]
    jax.tree.map(np.testing.assert_array_equal, frozen, trained)


@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_first_moments_are_kept_in_the_type_that_is_asked_for_and_second_ones_in_float32(
    moments: str,
) -> None:
    config = default()
    config.optim.moments = moments
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    transformation = optim.optimizer(config, lambda _: 0.1)
    state = transformation.init(params)
    for _ in range(2):
        updates, state = transformation.update(params, state, params)
    adam = optax.tree.get(state, "ScaleByAdamState")
    assert {x.dtype for x in jax.tree.leaves(adam.mu)} == {jnp.dtype(moments)}
    assert {x.dtype for x in jax.tree.leaves((adam.nu, updates))} == {jnp.dtype("float32")}
