"""The guesses for what weights do not show, and which fixed position table a file has."""

import math

import numpy as np

from amd_jax.convert.network import Triple
from amd_jax.errors import WeightsError
from amd_jax.models import positions

EQUAL = 1e-4  # largest difference of a position table that still counts as the fixed one
_KNOWN_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}  # ViT-H, ViT-g and others whose heads are not 64 wide


def heads(width: int, image_decoder: bool = False) -> int:
    """The usual number of heads for a width: 64 features each, 32 in MAE's decoder, 16 in tiny models."""
    if width in _KNOWN_HEADS and not image_decoder:
        return _KNOWN_HEADS[width]
    if width == 640:
        return 8  # the decoder of VideoMAE's ViT-H
    size = 16 if width < 192 else 32 if image_decoder else 64
    return max(n for n in range(1, max(1, width // size) + 1) if width % n == 0)


def grid(tokens: int | None, patch: Triple, video: bool) -> Triple:
    """The usual grid: square images; videos of 16 frames of 224 × 224 pixels.

    `tokens` is the length of the position table, None without one.

    Raises:
      WeightsError: the table fits neither, so that the grid has to be stated.
    """
    side = max(1, 224 // max(1, patch[1]))
    if not video:
        side = side if tokens is None else math.isqrt(max(0, tokens))
        if tokens is not None and side * side != tokens:
            raise WeightsError(f"{tokens} positions are not a square; give --grid=1,HEIGHT,WIDTH in tokens")
        return 1, side, side
    if tokens is None:
        return max(1, 16 // max(1, patch[0])), side, side
    for n in (side, *range(math.isqrt(max(0, tokens)), 0, -1)):
        if tokens % (n * n) == 0 and (n == side or tokens // (n * n) <= 64):
            return tokens // (n * n), n, n
    raise WeightsError(f"{tokens} positions fit no usual grid; give --grid=TIME,HEIGHT,WIDTH in tokens")


def position_kind(table: np.ndarray, grid: Triple, cls_token: bool) -> str:
    """Which fixed table a file's `[(1 +) tokens, width]` is, or "learned"."""
    width = table.shape[-1]
    if table.size != (cls_token + math.prod(grid)) * width:
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
