"""Pixel targets, distances and the fused loss against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amd_jax.steps.losses import (
    LossConfig,
    align,
    distance,
    distance_name,
    fused_loss,
    pixel_targets,
    pixels_from_targets,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("patch", "channel", "pixels")


def some_patches(seed: int = 0, values: int = 16) -> np.ndarray:
    """`[2, 3, values * 3]` bytes: three channels, channel last."""
    return np.random.default_rng(seed).integers(0, 256, (2, 3, values * 3), dtype=np.uint8)


def targets_by_definition(patches: np.ndarray, kind: str) -> np.ndarray:
    """MAE's, VideoMAE's and DMAE's targets, patch by patch in float64."""
    out = np.empty(patches.shape)
    for i in np.ndindex(patches.shape[:-1]):
        unit = patches[i].reshape(-1, 3) / 255
        x = (unit - MEAN) / STD
        if kind == "patch":
            x = (x - x.mean()) / np.sqrt(x.var(ddof=1) + 1e-6)
        elif kind == "channel":
            x = (unit - unit.mean(0)) / (unit.std(0, ddof=1) + 1e-6)
        out[i] = x.ravel()
    return out


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31), values=st.sampled_from([4, 16]))
def test_pixel_targets_are_their_definition(kind: str, seed: int, values: int) -> None:
    patches = some_patches(seed, values)
    targets = pixel_targets(patches, kind, MEAN, STD)
    np.testing.assert_allclose(targets, targets_by_definition(patches, kind), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_come_back_from_their_targets(kind: str) -> None:
    patches = some_patches()
    targets = pixel_targets(patches, kind, MEAN, STD)
    pixels = pixels_from_targets(targets, patches, kind, MEAN, STD)
    np.testing.assert_allclose(pixels, patches / 255, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_of_one_colour_has_finite_targets(kind: str) -> None:
    targets = pixel_targets(np.full((1, 2, 48), 7, np.uint8), kind, MEAN, STD)
    assert np.isfinite(targets).all()


def test_an_unknown_target_or_distance_is_an_error() -> None:
    with pytest.raises(ValueError, match="'colour'"):
        pixel_targets(some_patches(), "colour", MEAN, STD)
    with pytest.raises(ValueError, match="'l3'"):
        distance(jnp.ones(2), jnp.ones(2), "l3")


def test_distances_are_means_of_the_textbook_penalties() -> None:
    error = np.array([[0.0, 0.5, -0.5], [1.0, -3.0, 2.0]])
    b = np.ones((2, 3), np.float32)
    a = (b + error).astype(np.float32)
    assert distance(a, b, "l2") == pytest.approx((0.25 + 0.25 + 1 + 9 + 4) / 6)
    assert distance(a, b, "l1") == pytest.approx((0.5 + 0.5 + 1 + 3 + 2) / 6)
    # beta 1: 0.5 x² below one, |x| − 0.5 above
    assert distance(a, b, "smooth_l1") == pytest.approx((0.125 + 0.125 + 0.5 + 2.5 + 1.5) / 6)


@pytest.mark.parametrize("spelling", ["smooth_l1", "sml1", "SmoothL1", "smooth-l1-loss"])
def test_a_distance_is_the_same_in_every_spelling(spelling: str) -> None:
    a, b = jnp.linspace(-3, 3, 7), jnp.zeros(7)
    assert distance(a, b, spelling) == distance(a, b, "smooth_l1")
    assert distance_name(spelling) == "smooth_l1"


def test_distances_of_half_precision_features_are_computed_in_float32() -> None:
    a = jnp.full((64, 64), 1000.0, jnp.bfloat16)
    b = jnp.full((64, 64), 1004.0, jnp.bfloat16)
    value = distance(a, b, "l2")
    assert value.dtype == jnp.float32
    assert value == 16.0


def features(seed: int) -> list[np.ndarray]:
    """Two layers of `[2, 3, 8]` features, well away from zero mean and unit norm."""
    return list(np.random.default_rng(seed).normal(2, 3, (2, 2, 3, 8)).astype(np.float32))


def norm(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize(
    ("kind", "of_student", "of_teacher"),
    [
        ("none", lambda x: x, lambda x: x),
        ("layernorm", lambda x: x, layer_norm),  # the teacher's side alone
        ("l2", norm, norm),
    ],
)
@pytest.mark.parametrize("layers", ["mean", "sum"])
def test_alignment_normalises_the_named_side_and_combines_layers(
    kind, of_student, of_teacher, layers
) -> None:
    student, teacher = features(1), features(2)
    per_layer = [np.abs(of_student(s) - of_teacher(t)).mean() for s, t in zip(student, teacher, strict=True)]
    expected = np.mean(per_layer) if layers == "mean" else np.sum(per_layer)
    config = LossConfig(align="l1", feature_norm=kind, layers=layers)
    np.testing.assert_allclose(align(student, teacher, config), expected, rtol=1e-5)


def test_different_numbers_of_layers_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match="zip"):
        align(features(1), features(2)[:1], LossConfig())


def test_the_fused_loss_is_the_weighted_sum_of_its_unweighted_parts() -> None:
    config = LossConfig(align="l1", rec_weight=0.5, direct_weight=3.0, gen_weight=7.0)
    rng = np.random.default_rng(0)
    pixels, targets = rng.normal(size=(2, 2, 5, 12)).astype(np.float32)
    direct, gen = (features(1), features(2)), (features(3), features(4))
    loss, parts = fused_loss(pixels, targets, direct, gen, config)
    assert list(parts) == ["loss_rec", "loss_direct", "loss_gen"]
    np.testing.assert_allclose(parts["loss_rec"], ((pixels - targets) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(parts["loss_direct"], np.abs(np.subtract(*direct)).mean(), rtol=1e-5)
    np.testing.assert_allclose(parts["loss_gen"], np.abs(np.subtract(*gen)).mean(), rtol=1e-5)
    expected = 0.5 * parts["loss_rec"] + 3 * parts["loss_direct"] + 7 * parts["loss_gen"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_parts_without_layers_are_left_out() -> None:
    x = np.ones((1, 2, 3), np.float32)
    loss, parts = fused_loss(x, 0 * x, ((), ()), ((), ()), LossConfig(rec_weight=2.0))
    assert list(parts) == ["loss_rec"]
    assert loss == 2.0


def test_the_gradient_of_l2_normalised_alignment_is_finite_at_zero_features() -> None:
    teacher = [jnp.zeros((1, 2, 4))]
    gradient = jax.grad(lambda s: align([s], teacher, LossConfig(feature_norm="l2")))(jnp.zeros((1, 2, 4)))
    assert np.isfinite(gradient).all()
