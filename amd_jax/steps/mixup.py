"""Mixup, cutmix and soft targets: what fine-tuning does to a batch on the device, inside the step.

As timm's Mixup (huggingface/pytorch-image-models, timm/data/mixup.py), which MAE, DMAE, VideoMAE and AMD
use: an example is mixed with the one at the mirrored place of the batch.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from amd_jax.models import patches


class Mixing(NamedTuple):
    """How each example is mixed with its partner: a weighted sum, but inside `box` the partner alone.

    Only numbers for each example, so they can be drawn for a whole batch and applied to a part of it.
    """

    weight: jax.Array  # [batch], of the example itself outside the box
    box: jax.Array  # [batch, 4] int32: first and last + 1 row, first and last + 1 column
    share: jax.Array  # [batch], of the example itself in the label


def draw_mixing(
    key: jax.Array,
    batch: int,
    size: tuple[int, int],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    groups: int = 1,
) -> Mixing:
    """Draw mixup (a weighted sum) or cutmix (a pasted box), with equal probability where both are on.

    The share λ of an example itself is drawn from Beta(α, α). Cutmix pastes a box of 1 − λ of the area
    around a uniform centre, the same in all frames; the border cuts it off, and λ is corrected to the area
    that was not pasted over. (So does AMD, whose engine_for_finetuning.py hands timm clips with channels and
    frames as one axis. VideoMAE's mixup.py cuts a batch of clips along frames and rows instead of rows and
    columns, and labels it with the λ of the area; that is not repeated.)
    Nothing has a size that depends on what was drawn, and the same key mixes the same way on every mesh.

    Args:
      key: the random key.
      batch: number of examples.
      size: height and width in pixels.
      mixup_alpha: α of mixup; 0 turns it off.
      cutmix_alpha: α of cutmix; 0 turns it off. One of the two must be on.
      groups: the batch is mixed in so many parts of neighbours, each with one draw. timm draws for the batch
        of each process, so its runs on n devices correspond to n groups.

    Raises:
      ValueError: groups that do not divide the batch, or nothing that is on.
    """
    if batch % groups:
        raise ValueError(f"a batch of {batch} cannot be mixed in {groups} groups")
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        raise ValueError("neither mixup nor cutmix is on")
    keys = jax.random.split(key, 5)
    if mixup_alpha > 0 and cutmix_alpha > 0:
        cut = jax.random.bernoulli(keys[1], 0.5, (groups,))
    else:
        cut = jnp.full((groups,), cutmix_alpha > 0)
    lam = jnp.ones((groups,))
    if mixup_alpha > 0:
        lam = symmetric_beta(keys[2], mixup_alpha, (groups,))
    if cutmix_alpha > 0:
        lam = jnp.where(cut, symmetric_beta(keys[3], cutmix_alpha, (groups,)), lam)
    # A group that is not cut gets an empty box, one that is gives its partners nothing outside of it.
    box = _box(keys[4], jnp.where(cut, lam, 1.0), size)
    top, bottom, left, right = box.T
    pasted = (bottom - top) * (right - left) / (size[0] * size[1])
    drawn = Mixing(jnp.where(cut, 1.0, lam), box, jnp.where(cut, 1 - pasted, lam))
    return Mixing(*(jnp.repeat(x, batch // groups, axis=0) for x in drawn))


def mirror(x: jax.Array, groups: int) -> jax.Array:
    """The partners of `x` `[batch, ...]`: each group of neighbours in reverse order, as timm pairs them.

    The middle example of a group of odd size meets itself.
    """
    return x.reshape(groups, -1, *x.shape[1:])[:, ::-1].reshape(x.shape)


def mix_pixels(pixels: jax.Array, partners: jax.Array, mixing: Mixing) -> jax.Array:
    """Float32 pixels; those of uint8 input are in [0, 1].

    Pixels may be mixed before or after the data set's normalisation: the weights add up to 1.

    Args:
      pixels: `[batch, frames, height, width, channels]`, uint8, or float (in [0, 1] or normalised).
      partners: the same of what each is mixed with.
      mixing: of these examples.
    """
    top, bottom, left, right = mixing.box.T[:, :, None, None]
    row, column = jnp.arange(pixels.shape[2])[:, None], jnp.arange(pixels.shape[3])
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    weights = jnp.where(inside, 0.0, mixing.weight[:, None, None])[:, None, :, :, None]
    return weights * patches.to_unit(pixels) + (1 - weights) * patches.to_unit(partners)


def mix_targets(
    labels: jax.Array, partners: jax.Array, mixing: Mixing, num_classes: int, smoothing: float = 0.0
) -> jax.Array:
    """`[batch, num_classes]` from the labels `[batch]` of examples and their partners."""
    share = mixing.share[:, None]
    own, other = (soft_targets(x, num_classes, smoothing) for x in (labels, partners))
    return share * own + (1 - share) * other


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
    return optax.losses.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def _box(key: jax.Array, lam: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Boxes `[draws, 4]` of 1 − lam of the area, as in `Mixing` (timm, `rand_bbox`).

    A box has sides rounded down to even numbers and a centre anywhere in the image, which cuts it off.
    """
    ratio = jnp.sqrt(1 - lam)

    def ends(key: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
        half = jnp.floor(length * ratio).astype(jnp.int32) // 2
        centre = jax.random.randint(key, lam.shape, 0, length)
        return jnp.clip(centre - half, 0, length), jnp.clip(centre + half, 0, length)

    key_y, key_x = jax.random.split(key)
    return jnp.stack([*ends(key_y, size[0]), *ends(key_x, size[1])], axis=1)
