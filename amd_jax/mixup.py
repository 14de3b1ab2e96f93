"""Mixup, cutmix and soft targets: what fine-tuning does to a batch on the device, inside the step.

As timm's Mixup (huggingface/pytorch-image-models, timm/data/mixup.py), which MAE, DMAE, VideoMAE and AMD
use: an example is mixed with the one at the mirrored place of the batch.
"""

import math

import jax
import jax.numpy as jnp

from amd_jax import patches


def mixup_cutmix(
    key: jax.Array,
    pixels: jax.Array,
    labels: jax.Array,
    num_classes: int,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_prob: float = 0.5,
    prob: float = 1.0,
    smoothing: float = 0.0,
    mode: str = "batch",
    groups: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Mix each example with another one, by a weighted sum (mixup) or by pasting a box (cutmix).

    The share λ of an example itself is drawn from Beta(α, α). Cutmix pastes a box of 1 − λ of the area
    around a uniform centre, the same in all frames; the border cuts it off, and λ is corrected to the area
    that was not pasted over. (So does AMD, dataset/mixup.py. VideoMAE's mixup.py cuts a batch of clips along
    frames and rows instead of rows and columns, and labels it with the λ of the area; that is not repeated.)
    Nothing has a size that depends on what was drawn, and the same key mixes the same way on every mesh.

    Pixels may be mixed before or after the data set's normalisation: the weights λ and 1 − λ add up to 1.

    Args:
      key: the random key.
      pixels: `[batch, frames, height, width, channels]`, uint8, or float (in [0, 1] or normalised).
      labels: `[batch]` int.
      num_classes: number of classes.
      mixup_alpha: α of mixup; 0 turns it off.
      cutmix_alpha: α of cutmix; 0 turns it off. With both off only the smoothing is left.
      switch_prob: probability of cutmix where both are on.
      prob: probability of mixing at all.
      smoothing: label smoothing, see `soft_targets`.
      mode: what shares one draw: "batch", all examples of a group, or "elem", none.
      groups: the batch is mixed in so many parts of neighbours, each by itself. timm draws for the batch of
        each process, so its runs on n devices correspond to n groups. The middle example of a group of odd
        size meets itself.

    Returns:
      Float32 pixels, those of uint8 input in [0, 1], and targets `[batch, num_classes]`.

    Raises:
      ValueError: an unknown mode, or groups that do not divide the batch.
    """
    batch, _, height, width, _ = pixels.shape
    if batch % groups:
        raise ValueError(f"a batch of {batch} cannot be mixed in {groups} groups")
    if mode not in ("batch", "elem"):
        raise ValueError(f"unknown mode {mode!r} of mixing")
    x = patches.to_unit(pixels)
    targets = soft_targets(labels, num_classes, smoothing)
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        return x, targets
    draws = groups if mode == "batch" else batch
    keys = jax.random.split(key, 5)
    active = jax.random.bernoulli(keys[0], prob, (draws,))
    if mixup_alpha > 0 and cutmix_alpha > 0:
        cut = jax.random.bernoulli(keys[1], switch_prob, (draws,))
    else:
        cut = jnp.full((draws,), cutmix_alpha > 0)
    lam = jnp.ones((draws,))
    if mixup_alpha > 0:
        lam = symmetric_beta(keys[2], mixup_alpha, (draws,))
    if cutmix_alpha > 0:
        lam = jnp.where(cut, symmetric_beta(keys[3], cutmix_alpha, (draws,)), lam)
    lam = jnp.where(active, lam, 1.0)
    inside = _box(keys[4], lam, height, width)
    lam = jnp.where(cut, 1 - inside.mean(axis=(1, 2)), lam)
    weights = jnp.where(cut[:, None, None], 1.0 - inside, lam[:, None, None])

    weights = jnp.repeat(weights, batch // draws, axis=0)[:, None, :, :, None]
    lam = jnp.repeat(lam, batch // draws)[:, None]
    x = weights * x + (1 - weights) * _mirror(x, groups)
    return x, lam * targets + (1 - lam) * _mirror(targets, groups)


def symmetric_beta(key: jax.Array, alpha: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws from Beta(alpha, alpha), float32.

    A closed form of two uniform numbers, exact for any alpha > 0: Student's t with 2·alpha degrees of freedom
    by the polar method (Bailey, Math. Comp. 62, 1994), and x = (1 + t / sqrt(2·alpha + t²)) / 2. jax's own
    beta and gamma are rejection loops: slower to compile than the rest of the mixing, and on a device as slow
    as the unluckiest element.
    """
    radius, angle = jax.random.uniform(key, (2, *shape))
    q = radius ** (1 / alpha)
    cos = jnp.cos(2 * math.pi * angle)
    # t² / (2·alpha + t²) with t² = 2·alpha · (1/q − 1) · cos²; multiplied by q, which may be zero.
    square = (1 - q) * jnp.square(cos)
    return 0.5 + 0.5 * jnp.sign(cos) * jnp.sqrt(square / jnp.maximum(q + square, 1e-30))


def soft_targets(labels: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """`labels` `[...]` as float32 distributions `[..., num_classes]`.

    `smoothing` is spread over all classes, the right one included: smoothing / num_classes for the others,
    1 − smoothing more than that for it (timm, `mixup_target`; the same as label-smoothing cross entropy).
    """
    return jax.nn.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of each example, float32 `[...]`, from logits and targets `[..., num_classes]`.

    Its mean over the batch is timm's SoftTargetCrossEntropy.
    """
    return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def _box(key: jax.Array, lam: jax.Array, height: int, width: int) -> jax.Array:
    """Float masks `[draws, height, width]`, 1 inside boxes of 1 − lam of the area (timm, `rand_bbox`).

    A box has sides rounded down to even numbers and a centre anywhere in the image, which cuts it off.
    """
    ratio = jnp.sqrt(1 - lam)

    def side(key: jax.Array, size: int) -> jax.Array:
        half = jnp.floor(size * ratio).astype(jnp.int32) // 2
        centre = jax.random.randint(key, lam.shape, 0, size)
        at = jnp.arange(size)
        return (at >= (centre - half)[:, None]) & (at < (centre + half)[:, None])

    key_y, key_x = jax.random.split(key)
    inside = side(key_y, height)[:, :, None] & side(key_x, width)[:, None, :]
    return inside.astype(jnp.float32)


def _mirror(x: jax.Array, groups: int) -> jax.Array:
    """`x` `[batch, ...]` with each group of neighbours in reverse order."""
    return x.reshape(groups, -1, *x.shape[1:])[:, ::-1].reshape(x.shape)
