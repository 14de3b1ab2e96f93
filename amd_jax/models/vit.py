"""The ViT encoder for images and videos (an image is a video of one frame)."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from amd_jax.models import positions
from amd_jax.models.blocks import BlockConfig, Blocks, Linear, Rotation, layer_norm, xavier


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """An encoder. `grid` is the number of tokens along (time, height, width).

    `patch_init` is how the patch embedding starts: "xavier", with a zero bias (MAE), or "uniform", weight and
    bias in ±1/sqrt(fan in), which is how PyTorch starts a convolution and VideoMAE and AMD leave it.
    """

    block: BlockConfig
    depth: int
    grid: tuple[int, int, int]
    cls_token: bool = True
    positions: str = "sincos_2d"  # a fixed table of amd_jax/models/positions.py, "learned" or "rotary"
    patch_init: str = "xavier"
    # Of teachers alone.
    registers: int = 0  # tokens between CLS and patches that stand for no place (DINOv2, DINOv3)
    pre_norm: bool = False  # a norm before the first block (CLIP)
    patch_bias: bool = True  # of the patch embedding (CLIP: none)
    rope_theta: float = 100.0  # base of the periods of rotary positions

    @property
    def tokens(self) -> int:
        """Patch tokens of a whole input, without the CLS token."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def prefix(self) -> int:
        """Tokens in front of the patches: CLS and registers."""
        return self.cls_token + self.registers

    @property
    def in_floats(self) -> "ViTConfig":
        """The same encoder with its kernels as files have them, none in eight bits."""
        return dataclasses.replace(self, block=dataclasses.replace(self.block, kept_as=""))


# What only teachers have: fields of an encoder or of its blocks, and keys of the config.
TEACHER_OPTIONS = ("mlp", "layer_scale", "registers", "pre_norm", "patch_bias", "rope_theta")


def option(config: ViTConfig, name: str) -> Any:
    """An encoder's value of one of `TEACHER_OPTIONS`."""
    return getattr(config.block if hasattr(config.block, name) else config, name)


class ViT(nn.Module):
    """Embeds the patches it is given, and no others, and runs the blocks over them."""

    config: ViTConfig
    final_norm: bool = True  # off for a teacher that is cut after its last aligned layer

    @nn.compact
    def __call__(
        self,
        patches: jax.Array,
        indices: jax.Array,
        taps: tuple[int, ...] = (),
        keep: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[int, jax.Array]]:
        """Encode visible patches.

        Args:
          patches: `[batch, n, patch values]`, normalised pixels of the visible patches.
          indices: `[batch, n]`, their token indices in the whole input.
          taps: layers, counted from 1, whose outputs are wanted, before any norm.
          keep: `[batch, depth, 2]`, drop path's factors; see `drop_path`.

        Returns:
          `[batch, (1 +) n, width]` after the final norm, CLS token first if there is one, then registers if
          there are any; and the taps, each of the same shape.
        """
        c = self.config
        width, residual = c.block.width, c.block.residual
        init = _patch_init(c.patch_init, patches.shape[-1])
        x = Linear(width, c.patch_bias, dtype=c.block.dtype, name="patch_embed", **init)(patches)
        x = x.astype(residual)
        table, prefix, token = self._positions(), [], nn.initializers.truncated_normal(0.02)
        if table is not None:
            x += table[c.cls_token :][indices].astype(residual)
        if c.cls_token:
            cls = self.param("cls_token", token, (width,))
            cls = cls if table is None else cls + table[0]
            prefix.append(jnp.broadcast_to(cls, (x.shape[0], 1, width)))  # before the cast: see `product`
        if c.registers:
            registers = self.param("registers", token, (c.registers, width))
            prefix.append(jnp.broadcast_to(registers, (x.shape[0], *registers.shape)))
        if prefix:
            x = jnp.concatenate([*(tokens.astype(residual) for tokens in prefix), x], axis=1)
        if c.pre_norm:
            x = layer_norm("pre_norm", c.block.norm_eps)(x).astype(residual)
        x, tapped = Blocks(c.block, c.depth, name="blocks")(x, taps, keep, self._rotation(indices))
        if self.final_norm:
            x = layer_norm("norm", c.block.norm_eps)(x)
        return x, tapped

    def _positions(self) -> jax.Array | None:
        """`[(1 +) tokens, width]`, zero for the CLS token if fixed; None where positions are rotary."""
        c = self.config
        if c.positions == "rotary":
            return None
        width = c.block.width
        if c.positions == "learned":
            init = nn.initializers.truncated_normal(0.02)
            return self.param("positions", init, (c.cls_token + c.tokens, width))
        table = jnp.asarray(positions.table(c.positions, c.grid, width))
        return jnp.pad(table, ((int(c.cls_token), 0), (0, 0)))

    def _rotation(self, indices: jax.Array) -> Rotation | None:
        """Rotary positions of the tokens that are seen; what stands in front of the patches does not turn."""
        c = self.config
        if c.positions != "rotary":
            return None
        angles = jnp.asarray(positions.rotary(c.grid, c.block.width // c.block.heads, c.rope_theta))[indices]
        angles = jnp.pad(angles, ((0, 0), (c.prefix, 0), (0, 0)))[:, :, None]
        return jnp.cos(angles), jnp.sin(angles)


def _patch_init(name: str, fan_in: int) -> dict[str, Any]:
    """How kernel and bias of a patch embedding are drawn; see `ViTConfig`."""
    if name == "xavier":
        return {"kernel_init": xavier, "bias_init": nn.initializers.zeros}
    bound = 1 / math.sqrt(fan_in)

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": uniform, "bias_init": uniform}


def drop_path(key: jax.Array, batch: int, depth: int, rate: float) -> jax.Array:
    """Stochastic depth: `[batch, depth, 2]` factors, 0 or 1 / (1 - rate of the block).

    The rate rises linearly from 0 at the first block to `rate` at the last; both branches of a block are
    dropped independently, example by example (timm's DropPath).
    """
    keep = 1 - jnp.linspace(0, rate, depth)[:, None]
    return jax.random.bernoulli(key, keep, (batch, depth, 2)) / keep
