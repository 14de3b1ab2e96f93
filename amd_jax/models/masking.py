"""Asymmetric masks: one permutation per sample gives student-visible, diff and masked positions.

The first `student_visible` positions of the permutation are seen by student and teacher, the next ones up to
`teacher_visible` by the teacher alone ("diff"), the rest by nobody. So teacher-visible = student-visible ∪
diff is a superset by construction. Video masks are tubes: drawn once over the positions of a frame and
repeated over time (AMD, arXiv 2311.03149, section 3; VideoMAE's tube masking).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Masks(NamedTuple):
    """Token indices, ascending within each set; the three sets partition the tokens of each sample."""

    student: jax.Array  # [batch, n] int32, seen by both
    diff: jax.Array  # [batch, m] int32, seen by the teacher alone
    masked: jax.Array  # [batch, k] int32, seen by nobody

    @property
    def teacher(self) -> jax.Array:
        """Teacher-visible tokens `[batch, n + m]`: the student's first, then the diff."""
        return jnp.concatenate([self.student, self.diff], axis=1)

    @property
    def hidden(self) -> jax.Array:
        """Tokens the student does not see, `[batch, m + k]`: the diff first, then the masked."""
        return jnp.concatenate([self.diff, self.masked], axis=1)


def visible_count(positions: int, ratio: float, floor: str = "masked") -> int:
    """How many of `positions` stay visible at a mask ratio.

    `floor` says which number is rounded down: the masked one (VideoMAE, AMD) or the visible one (MAE, DMAE).
    """
    if floor == "masked":
        return positions - int(ratio * positions)
    return int(positions * (1 - ratio))


def nested_masks(
    key: jax.Array,
    batch: int,
    grid: tuple[int, int, int],
    student_visible: int,
    teacher_visible: int,
) -> Masks:
    """Draw masks for `batch` samples, each with its own permutation.

    Args:
      key: the random key; the same key gives the same masks on every mesh.
      batch: number of samples.
      grid: tokens along (time, height, width).
      student_visible: positions of a frame that the student sees.
      teacher_visible: positions of a frame that the teacher sees, at least as many.
    """
    times, positions = grid[0], grid[1] * grid[2]
    if not 0 < student_visible <= teacher_visible <= positions:
        raise ValueError(
            f"visible positions must satisfy 0 < student ({student_visible}) <= teacher "
            f"({teacher_visible}) <= all ({positions})"
        )
    order = jnp.argsort(jax.random.uniform(key, (batch, positions)), axis=1).astype(jnp.int32)
    parts = jnp.split(order, [student_visible, teacher_visible], axis=1)
    offsets = positions * jnp.arange(times, dtype=jnp.int32)

    def tube(part: jax.Array) -> jax.Array:
        part = jnp.sort(part, axis=1)  # neighbours in memory stay neighbours, and pictures are easy to read
        return (offsets[None, :, None] + part[:, None, :]).reshape(batch, -1)

    return Masks(*map(tube, parts))


def masks_from_levels(levels: np.ndarray) -> Masks:
    """Masks from `[batch, tokens]` of 0 student-visible, 1 diff, 2 masked; equal counts in every row."""
    rows = [[np.flatnonzero(row == level) for row in levels] for level in (0, 1, 2)]
    return Masks(*(jnp.asarray(np.stack(part), jnp.int32) for part in rows))


def levels_from_masks(masks: Masks) -> jax.Array:
    """The inverse of `masks_from_levels`: `[batch, tokens]` int32, for pictures."""
    tokens = sum(part.shape[1] for part in masks)

    def row(one: Masks) -> jax.Array:
        out = jnp.zeros(tokens, jnp.int32)
        return out.at[one.diff].set(1).at[one.masked].set(2)

    return jax.vmap(row)(masks)
