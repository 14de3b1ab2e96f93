"""Mixup and cutmix: targets against pixels, boxes against areas, draws against their distribution."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from amd_jax.steps.mixup import (
    draw_mixing,
    mirror,
    mix_pixels,
    mix_targets,
    soft_targets,
    symmetric_beta,
)

CLASSES = 8
BATCH, FRAMES, HEIGHT, WIDTH = 8, 2, 12, 10
LABELS = np.arange(BATCH)
ALPHAS = {"mixup": (0.8, 0.0), "cutmix": (0.0, 1.0), "both": (0.8, 1.0)}


def mix(
    key: jax.Array, pixels: Any, labels: Any, kind: str, classes: int, groups: int = 1, smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Pixels and targets of a batch, drawn and mixed."""
    mixup, cutmix = ALPHAS[kind]
    options: Any = {"mixup_alpha": mixup, "cutmix_alpha": cutmix, "groups": groups}
    mixing = draw_mixing(key, len(labels), pixels.shape[2:4], **options)
    targets = mix_targets(labels, mirror(labels, groups), mixing, classes, smoothing)
    return mix_pixels(pixels, mirror(pixels, groups), mixing), targets


@functools.lru_cache
def mixer(kind: str, **options: Any) -> Any:
    return jax.jit(functools.partial(mix, kind=kind, classes=CLASSES, **options))


def one_hot_colours() -> jnp.ndarray:
    """Example i is white in channel i and black in the others, so pixels show what was mixed."""
    colours = jnp.eye(BATCH)[:, None, None, None, :]
    return jnp.broadcast_to(colours, (BATCH, FRAMES, HEIGHT, WIDTH, BATCH))


def mixed(kind: str, seed: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    pixels, targets = mixer(kind, **options)(jax.random.key(seed), one_hot_colours(), LABELS)
    return np.asarray(pixels), np.asarray(targets)


def test_soft_targets_spread_the_smoothing_over_all_classes():
    targets = np.asarray(soft_targets(jnp.array([2, 0]), 4, 0.1))
    off, on = 0.1 / 4, 1 - 0.1 + 0.1 / 4
    np.testing.assert_allclose(targets, [[off, off, on, off], [on, off, off, off]], rtol=1e-6)
    np.testing.assert_array_equal(soft_targets(jnp.array([1]), 3), [[0, 1, 0]])


def test_cross_entropy_with_soft_targets_is_timms_label_smoothing():
    logits = jax.random.normal(jax.random.key(0), (5, CLASSES))
    labels = jnp.arange(5)
    smooth = optax.losses.softmax_cross_entropy(logits, soft_targets(labels, CLASSES, 0.1))
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    expected = 0.9 * nll - 0.1 * jax.nn.log_softmax(logits).mean(-1)  # timm's LabelSmoothingCrossEntropy
    np.testing.assert_allclose(smooth, expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_symmetric_beta_is_the_beta_distribution(alpha: float):
    draws = np.asarray(symmetric_beta(jax.random.key(3), alpha, (4000,)))
    assert np.isfinite(draws).all()
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_symmetric_beta_of_a_tiny_alpha_is_a_coin():
    draws = np.asarray(symmetric_beta(jax.random.key(0), 1e-3, (1000,)))
    assert np.isfinite(draws).all()
    assert np.mean((draws < 1e-3) | (draws > 1 - 1e-3)) > 0.97
    assert draws.mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kind", list(ALPHAS))
def test_targets_are_the_shares_of_the_pixels(kind: str, groups: int):
    # Averaged over an image, channel c is the share of example c in it; its label is c.
    for seed in range(6):
        pixels, targets = mixed(kind, seed, groups=groups)
        assert pixels.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), targets, atol=1e-5)
        partners = targets > 0
        eye = np.eye(BATCH, dtype=bool)
        allowed = eye | np.asarray(mirror(eye, groups))
        assert not (partners & ~allowed).any()


@pytest.mark.parametrize("groups", [1, 4])
def test_mixup_has_one_colour_everywhere(groups: int):
    pixels, targets = mixed("mixup", 0, groups=groups)
    np.testing.assert_allclose(pixels, np.broadcast_to(targets[:, None, None, None], pixels.shape), atol=1e-6)
    shares = np.diag(targets)
    assert len(set(shares.round(5))) == groups
    assert ((shares > 0) & (shares < 1)).all()


def test_cutmix_pastes_one_box_of_all_frames_and_lam_is_what_is_left():
    sizes = set()
    for seed in range(30):
        pixels, targets = mixed("cutmix", seed)
        assert set(np.unique(pixels)) <= {0.0, 1.0}
        own = pixels[np.arange(BATCH), ..., np.arange(BATCH)]
        assert (own == own[:1, :1]).all()  # the same box in every frame and example
        box = own[0, 0] == 0
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, rows[:, None] & columns[None])
        assert np.abs(np.diff(rows.astype(int))).sum() <= 2
        np.testing.assert_allclose(np.diag(targets), 1 - box.mean(), atol=1e-6)
        sizes.add((int(rows.sum()), int(columns.sum())))
    assert len(sizes) > 10


def test_cutmix_boxes_have_the_sides_and_centres_of_timm():
    # What is left of the image has the distribution that timm's rand_bbox gives it, border and all.
    @jax.jit
    def boxes(keys: jax.Array) -> jax.Array:
        pixels = jnp.zeros((2, 1, 16, 16, 1)).at[1].set(1)
        return jax.vmap(lambda key: mix(key, pixels, jnp.arange(2), "cutmix", 2)[1][0, 0])(keys)

    shares = np.asarray(boxes(jax.random.split(jax.random.key(0), 4000)))
    rng = np.random.default_rng(0)
    expected = []
    for lam in rng.beta(1.0, 1.0, 4000):
        half = int(16 * np.sqrt(1 - lam)) // 2
        y, x = rng.integers(0, 16, 2)
        sides = [min(c + half, 16) - max(c - half, 0) for c in (y, x)]
        expected.append(1 - sides[0] * sides[1] / 256)
    assert stats.ks_2samp(shares, expected).pvalue > 0.01


def test_cutmix_and_mixup_are_equally_likely_and_each_group_draws_for_itself():
    keys, groups = jax.random.split(jax.random.key(1), 200), BATCH // 2
    run = jax.jit(jax.vmap(lambda key: mix(key, one_hot_colours(), LABELS, "both", CLASSES, groups)[0]))
    own = np.asarray(run(keys)).reshape(-1, BATCH, FRAMES * HEIGHT * WIDTH, BATCH)
    own = own[:, np.arange(BATCH), :, np.arange(BATCH)]
    same = (own == 1).all(axis=-1)
    cut = ((own == 0) | (own == 1)).all(axis=-1) & ~same
    assert same.mean() < 0.06  # boxes without an inside
    assert cut.mean() == pytest.approx(0.5, abs=0.07)
    assert 0 < cut[:, 0].sum() < BATCH  # within one batch


def test_examples_meet_their_mirror_image_within_their_group():
    pixels, targets = mixed("mixup", 0, groups=2)
    lam = np.diag(targets)
    assert len(set(lam[:4].round(5))) == len(set(lam[4:].round(5))) == 1
    assert abs(lam[0] - lam[4]) > 1e-4
    eye = np.eye(BATCH)
    partner = eye[[3, 2, 1, 0, 7, 6, 5, 4]]
    np.testing.assert_allclose(targets, lam[:, None] * eye + (1 - lam[:, None]) * partner, atol=1e-6)
    np.testing.assert_allclose(pixels[:, 0, 0, 0], targets, atol=1e-6)


def test_smoothing_is_that_of_the_two_labels():
    _, plain = mixed("mixup", 0)
    _, smooth = mixed("mixup", 0, smoothing=0.1)
    np.testing.assert_allclose(smooth, 0.9 * plain + 0.1 / CLASSES, atol=1e-6)


def test_uint8_becomes_unit_floats():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 4, 4, 3), np.uint8)
    mixed_unit, _ = mixer("both")(jax.random.key(0), pixels / np.float32(255), np.arange(4))
    mixed_bytes, _ = mixer("both")(jax.random.key(0), pixels, np.arange(4))
    np.testing.assert_allclose(mixed_bytes, mixed_unit, rtol=1e-6)


def test_mixing_a_part_of_a_batch_is_a_part_of_the_mixed_batch():
    """What accumulation does: draw for all, apply to each pass's share."""
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 8, 8, 3), np.uint8)
    mixing = draw_mixing(jax.random.key(3), BATCH, (8, 8), mixup_alpha=0.8, cutmix_alpha=1.0, groups=2)
    whole = mix_pixels(pixels, mirror(pixels, 2), mixing)
    part = jax.tree.map(lambda x: x[1::4], (pixels, mirror(pixels, 2), mixing))
    np.testing.assert_array_equal(mix_pixels(*part), whole[1::4])


def test_bad_options_are_errors():
    with pytest.raises(ValueError, match="3 groups"):
        draw_mixing(jax.random.key(0), 4, (2, 2), mixup_alpha=1.0, cutmix_alpha=0.0, groups=3)
    with pytest.raises(ValueError, match="neither"):
        draw_mixing(jax.random.key(0), 4, (2, 2), mixup_alpha=0.0, cutmix_alpha=0.0)


@pytest.mark.parametrize("groups", [1, 4])
def test_every_mesh_mixes_the_same_way_with_one_compilation(groups: int):
    mix = mixer("both", groups=groups)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = (one_hot_colours(), jnp.asarray(LABELS))
    placed = jax.device_put(batch, sharding)
    before = mix._cache_size()
    for seed in range(3):
        key = jax.random.key(seed)
        alone, spread = mix(key, *batch), mix(key, *placed)
        for a, b in zip(alone, spread, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)
    assert mix._cache_size() - before <= 2  # one for each sharding
