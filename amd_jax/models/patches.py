"""The patch layout: the one place that knows how pixels become tokens.

A patch (image) or tubelet (video) of `pt` frames by `p` by `p` pixels becomes one token. Tokens are in the
order (t h w); inside a token the values are in the order (t h w channel), channel last. This is the layout
of the prediction targets of both MAE (`nhpwqc -> nhwpqc`) and VideoMAE (`(t p0) (h p1) (w p2) c`).
"""

import jax
import jax.numpy as jnp

Patch = tuple[int, int, int]  # frames, height, width


def patchify(pixels: jax.Array, patch: Patch) -> jax.Array:
    """Cut `[batch, frames, height, width, channels]` into `[batch, tokens, patch values]`."""
    b, t, h, w, c = pixels.shape
    pt, ph, pw = patch
    x = pixels.reshape(b, t // pt, pt, h // ph, ph, w // pw, pw, c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, (t // pt) * (h // ph) * (w // pw), pt * ph * pw * c)


def resized(pixels: jax.Array, size: tuple[int, int], method: str) -> jax.Array:
    """`[batch, frames, height, width, channels]` as float32 in [0, 1], of another height and width.

    `method` is "bicubic" or "bilinear", antialiased as Pillow's, without its rounding to 8 bits.
    """
    name = {"bicubic": "cubic", "bilinear": "linear"}[method]
    shape = (*pixels.shape[:2], *size, pixels.shape[-1])
    return jnp.clip(jax.image.resize(to_unit(pixels), shape, name, antialias=True), 0, 1)


def unpatchify(patches: jax.Array, patch: Patch, grid: Patch) -> jax.Array:
    """The inverse of `patchify`; `grid` is the number of tokens along (t, h, w)."""
    b = patches.shape[0]
    x = patches.reshape(b, *grid, *patch, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    t, h, w = (g * p for g, p in zip(grid, patch, strict=True))
    return x.reshape(b, t, h, w, -1)


def gather_tokens(tokens: jax.Array, indices: jax.Array) -> jax.Array:
    """Pick `indices` `[batch, n]` from `tokens` `[batch, tokens, width]`: `[batch, n, width]`."""
    return jnp.take_along_axis(tokens, indices[..., None], axis=1)


def normalize(patches: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 (or [0, 1] float) patch values to float32, minus the channel mean, over the channel std."""
    x = to_unit(patches)
    shape = x.shape
    x = x.reshape(*shape[:-1], -1, len(mean))
    x = (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    return x.reshape(shape)


def to_unit(patches: jax.Array) -> jax.Array:
    """uint8 values to float32 in [0, 1]; floats are taken to be there already."""
    if patches.dtype == jnp.uint8:
        return patches.astype(jnp.float32) / 255
    return patches.astype(jnp.float32)
