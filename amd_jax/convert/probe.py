"""Reading sizes off names and shapes, and the guesses for what they do not show."""

import math
import re

import numpy as np

from amd_jax.config import ConfigError
from amd_jax.convert.arch import Shape, Stack, Triple
from amd_jax.convert.readers import Source
from amd_jax.models import positions

EQUAL = 1e-4  # largest difference of a position table that still counts as the fixed one
_KNOWN_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}  # ViT-H, ViT-g and others whose heads are not 64 wide


class Probe:
    """Looks things up in a source and says clearly what is missing."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def has(self, *names: str) -> bool:
        """Whether any of `names` is there."""
        return any(name in self.source.infos for name in names)

    def shape(self, name: str) -> Shape:
        """The shape of a weight.

        Raises:
          ConfigError: there is none of that name.
        """
        if name not in self.source.infos:
            raise ConfigError(f"{self.source.path}: no {name} in it, so it is no ViT of a known kind")
        return self.source.infos[name].shape

    def count(self, prefix: str, suffix: str) -> int:
        """How many `prefix.N.suffix` there are; `suffix` is a pattern."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.{suffix}")
        found = [int(m[1]) for name in self.source.infos if (m := pattern.fullmatch(name))]
        return max(found) + 1 if found else 0

    def stack(self, prefix: str, heads: int, norm_eps: float) -> Stack:
        """The blocks below `prefix`, under the official names or those of transformers.

        Raises:
          ConfigError: they are not plain ViT blocks, or `heads` does not divide the width.
        """
        depth = self.count(prefix, r"(attn|attention|mlp|norm1|layernorm_before)\..*")
        first = f"{prefix}.0"
        mlp, is_hf = f"{first}.mlp.fc1.weight", self.has(f"{first}.intermediate.dense.weight")
        shape = self.shape(f"{first}.intermediate.dense.weight" if is_hf else mlp)
        if len(shape) != 2:
            raise ConfigError(f"{self.source.path}: the MLP of {prefix} is {list(shape)}, expected two axes")
        attn = f"{first}.attention.attention" if is_hf else f"{first}.attn"
        bias = "none"
        if self.has(f"{attn}.q_bias", f"{attn}.v_bias"):
            bias = "qv"
        elif self.has(f"{attn}.qkv.bias", f"{attn}.key.bias"):
            bias = "qkv"
        mlp_width, width = shape
        if heads < 1 or width % heads:
            raise ConfigError(
                f"{self.source.path}: {heads} heads do not divide the width {width} of {prefix}"
            )
        return Stack(width, depth, heads, mlp_width, bias, norm_eps)


def guess_heads(width: int, image_decoder: bool = False) -> int:
    """The usual number of heads for a width: 64 features each, 32 in MAE's decoder, 16 in tiny models."""
    if width in _KNOWN_HEADS and not image_decoder:
        return _KNOWN_HEADS[width]
    if width == 640:
        return 8  # the decoder of VideoMAE's ViT-H
    size = 16 if width < 192 else 32 if image_decoder else 64
    return max(n for n in range(1, max(1, width // size) + 1) if width % n == 0)


def guess_grid(tokens: int | None, patch: Triple, video: bool) -> Triple:
    """The usual grid: square images; videos of 16 frames of 224 × 224 pixels.

    `tokens` is the length of the position table, None without one.

    Raises:
      ConfigError: the table fits neither, so that the grid has to be stated.
    """
    side = max(1, 224 // patch[1])
    if not video:
        side = side if tokens is None else math.isqrt(tokens)
        if tokens is not None and side * side != tokens:
            raise ConfigError(f"{tokens} positions are not a square; give --grid=1,HEIGHT,WIDTH in tokens")
        return 1, side, side
    if tokens is None:
        return max(1, 16 // patch[0]), side, side
    for n in (side, *range(math.isqrt(tokens), 0, -1)):
        if tokens % (n * n) == 0 and (n == side or tokens // (n * n) <= 64):
            return tokens // (n * n), n, n
    raise ConfigError(f"{tokens} positions fit no usual grid; give --grid=TIME,HEIGHT,WIDTH in tokens")


def position_kind(table: np.ndarray, grid: Triple, cls_token: bool) -> str:
    """Which fixed table a file's `[1, (1 +) tokens, width]` is, or "learned"."""
    width = table.shape[-1]
    if table.size != (cls_token + grid[0] * grid[1] * grid[2]) * width:
        return "learned"
    for kind in ("sincos_2d", "sincos_1d") if width % 4 == 0 else ("sincos_1d",):
        fixed = fixed_table(kind, grid, width, cls_token).astype(table.dtype)
        difference = np.abs(table.reshape(fixed.shape).astype(np.float32) - fixed.astype(np.float32))
        if difference.max(initial=0) <= EQUAL:
            return kind
    return "learned"


def fixed_table(kind: str, grid: Triple, width: int, cls_token: bool) -> np.ndarray:
    """Our fixed table `[(1 +) tokens, width]`; zero for the CLS token."""
    table = positions.table(kind, grid, width)
    return np.pad(table, ((int(cls_token), 0), (0, 0)))
