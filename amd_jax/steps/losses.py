"""Pixel targets, alignment distances, and the one fused loss of masked distillation."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from amd_jax.models import patches as patch_layout

# Every known spelling of a distance, in lower case and without "_", "-" and "loss", and our name for it.
# `sml1` is that of AMD's released flags.
_DISTANCES = {"l2": "l2", "mse": "l2", "l1": "l1", "smoothl1": "smooth_l1", "sml1": "smooth_l1"}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What is predicted, how features are compared, and the weight of each part."""

    target: str = "patch"  # "patch", "channel" or "pixels"; see `pixel_targets`
    align: str = "l2"  # "l2", "l1" or "smooth_l1", or another spelling that `distance_name` knows
    feature_norm: str = "none"  # "none", "layernorm" (teacher) or "l2" (both sides)
    layers: str = "mean"  # over aligned layers: "mean" (AMD) or "sum" (DMAE)
    rec_weight: float = 1.0
    direct_weight: float = 1.0
    gen_weight: float = 1.0


def pixel_targets(
    patches: jax.Array, kind: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """What the decoder has to predict for `patches` `[..., patch values]` (uint8, or float in [0, 1]).

    - "patch": normalised over all values of the patch after the data set's normalisation, with unbiased
      variance, (x − mean) / sqrt(var + 1e-6): MAE's norm_pix_loss.
    - "channel": pixels in [0, 1], each channel normalised over the patch with unbiased variance,
      (x − mean) / (std + 1e-6): VideoMAE and AMD.
    - "pixels": the data set's normalisation only: DMAE, and MAE without norm_pix_loss.

    Raises:
      ValueError: another kind.
    """
    if kind == "channel":
        x = patch_layout.to_unit(patches)
        shape = x.shape
        x = x.reshape(*shape[:-1], -1, len(mean))
        spread = jnp.sqrt(x.var(axis=-2, ddof=1, keepdims=True)) + 1e-6
        return ((x - x.mean(axis=-2, keepdims=True)) / spread).reshape(shape)
    x = patch_layout.normalize(patches, mean, std)
    if kind == "patch":
        spread = jnp.sqrt(x.var(axis=-1, ddof=1, keepdims=True) + 1e-6)
        return (x - x.mean(axis=-1, keepdims=True)) / spread
    if kind == "pixels":
        return x
    raise ValueError(f"unknown pixel target {kind!r}")


def pixels_from_targets(
    predicted: jax.Array,
    patches: jax.Array,
    kind: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> jax.Array:
    """The inverse of `pixel_targets`, for pictures: predictions back to pixels in [0, 1].

    Per-patch statistics are those of the true `patches`, which are in [0, 1] or uint8.
    """
    unit = patch_layout.to_unit(patches)
    shape = (*unit.shape[:-1], -1, len(mean))
    x = predicted.reshape(shape)
    if kind == "channel":
        true = unit.reshape(shape)
        x = x * (jnp.std(true, axis=-2, ddof=1, keepdims=True) + 1e-6) + true.mean(axis=-2, keepdims=True)
        return x.reshape(unit.shape)
    if kind == "patch":
        true = patch_layout.normalize(patches, mean, std)
        spread = jnp.sqrt(true.var(axis=-1, ddof=1, keepdims=True) + 1e-6)
        x = (predicted * spread + true.mean(axis=-1, keepdims=True)).reshape(shape)
    return (x * jnp.asarray(std) + jnp.asarray(mean)).reshape(unit.shape)


def distance_name(spelling: str) -> str:
    """ "l2", "l1" or "smooth_l1", in whichever spelling it is given.

    Raises:
      ValueError: no distance is called that.
    """
    plain = spelling.lower().replace("_", "").replace("-", "").removesuffix("loss")
    if plain not in _DISTANCES:
        raise ValueError(f"{spelling!r}: choose one of l2 (or mse), l1 and smooth_l1 (or sml1)")
    return _DISTANCES[plain]


def distance(a: jax.Array, b: jax.Array, kind: str) -> jax.Array:
    """Mean distance of two equally shaped arrays, in float32: "l2" squared, "l1", or "smooth_l1" (beta 1).

    Raises:
      ValueError: another kind.
    """
    kind = distance_name(kind)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    if kind == "l2":
        return optax.losses.squared_error(a, b).mean()
    if kind == "l1":
        return jnp.abs(a - b).mean()
    return optax.losses.huber_loss(a, b).mean()


def align(student: Sequence[jax.Array], teacher: Sequence[jax.Array], config: LossConfig) -> jax.Array:
    """Mean (or sum) over layers of the distance between projected student and teacher features.

    Each layer is `[batch, tokens, width]` on both sides.

    Raises:
      ValueError: different numbers of layers.
    """
    terms = []
    for s, t in zip(student, teacher, strict=True):
        s, t = s.astype(jnp.float32), t.astype(jnp.float32)
        if config.feature_norm == "layernorm":
            t = _layernorm(t)
        elif config.feature_norm == "l2":
            s, t = _l2_normalize(s), _l2_normalize(t)
        terms.append(distance(s, t, config.align))
    total = sum(terms, jnp.zeros(()))
    return total / len(terms) if config.layers == "mean" else total


def fused_loss(
    pixels: jax.Array,
    targets: jax.Array,
    direct: tuple[Sequence[jax.Array], Sequence[jax.Array]],
    gen: tuple[Sequence[jax.Array], Sequence[jax.Array]],
    config: LossConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Reconstruction + direct + generative alignment (AMD, arXiv 2311.03149, eq. 9).

    Args:
      pixels: predicted patches `[batch, n, patch values]`.
      targets: the patches to predict, same shape.
      direct: student and teacher features at student-visible tokens, a sequence of layers each.
      gen: student and teacher features at diff tokens, a sequence of layers each.

    Returns:
      The weighted sum, and its unweighted parts by name; parts that are not trained are left out.
    """
    parts = {"loss_rec": distance(pixels, targets, "l2")}
    loss = config.rec_weight * parts["loss_rec"]
    if direct[0]:
        parts["loss_direct"] = align(*direct, config)
        loss += config.direct_weight * parts["loss_direct"]
    if gen[0]:
        parts["loss_gen"] = align(*gen, config)
        loss += config.gen_weight * parts["loss_gen"]
    return loss, parts


def _layernorm(x: jax.Array) -> jax.Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def _l2_normalize(x: jax.Array) -> jax.Array:
    """PyTorch's F.normalize: the norm is clamped at 1e-12. Safe to differentiate at zero."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
