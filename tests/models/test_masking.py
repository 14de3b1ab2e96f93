"""Nested masks: a partition with static sizes, tubes in time, one fair permutation per sample."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amd_jax.models.masking import Masks, levels_from_masks, masks_from_levels, nested_masks, visible_count

# Every new shape is a compilation, so there are fewer examples of them than the suite's profile has.
few = settings(max_examples=10)
draw_masks = jax.jit(nested_masks, static_argnums=(1, 2, 3, 4))


@st.composite
def draws(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int], int, int]:
    """Seed, batch, grid, and how many positions of a frame student and teacher see."""
    grid = draw(st.integers(1, 4)), draw(st.integers(1, 14)), draw(st.integers(1, 14))
    positions = grid[1] * grid[2]
    student = draw(st.integers(1, positions))
    teacher = draw(st.integers(student, positions))
    return draw(st.integers(0, 2**31 - 1)), draw(st.integers(1, 5)), grid, student, teacher


def sample(seed: int, batch: int, grid: tuple[int, int, int], student: int, teacher: int) -> Masks:
    """Masks as NumPy arrays."""
    return jax.device_get(draw_masks(jax.random.key(seed), batch, grid, student, teacher))


@few
@given(draws())
def test_the_three_sets_partition_the_tokens_and_have_the_counted_sizes(draw) -> None:
    _, batch, grid, student, teacher = draw
    times, positions = grid[0], grid[1] * grid[2]
    masks = sample(*draw)
    sizes = (student, teacher - student, positions - teacher)
    assert tuple(part.shape for part in masks) == tuple((batch, times * size) for size in sizes)
    assert all(part.dtype == np.int32 for part in masks)
    together = np.sort(np.concatenate(masks, axis=1), axis=1)
    np.testing.assert_array_equal(together, np.tile(np.arange(times * positions), (batch, 1)))


@few
@given(draws())
def test_the_teacher_sees_all_the_student_sees_and_tubes_repeat_in_every_frame(draw) -> None:
    _, batch, grid, student, teacher = draw
    times, positions = grid[0], grid[1] * grid[2]
    masks = sample(*draw)
    np.testing.assert_array_equal(masks.teacher[:, : times * student], masks.student)
    np.testing.assert_array_equal(masks.teacher[:, times * student :], masks.diff)
    np.testing.assert_array_equal(masks.hidden, np.concatenate([masks.diff, masks.masked], axis=1))
    assert masks.teacher.shape[1] == times * teacher
    for part in masks:
        assert (np.diff(part, axis=1) > 0).all()  # ascending
        frames = part.reshape(batch, times, -1)
        np.testing.assert_array_equal(frames % positions, np.repeat(frames[:, :1], times, axis=1))
        np.testing.assert_array_equal(frames // positions, np.arange(times)[None, :, None] + 0 * frames)


@few
@given(st.integers(0, 2**31 - 1), st.integers(1, 3), st.integers(0, 5), st.integers(0, 5))
def test_levels_and_masks_are_inverses(seed: int, student: int, diff: int, masked: int) -> None:
    row = np.repeat([0, 1, 2], [student, diff, masked])
    levels = np.random.default_rng(seed).permuted(np.tile(row, (3, 1)), axis=1)
    masks = masks_from_levels(levels)
    assert tuple(part.shape for part in masks) == ((3, student), (3, diff), (3, masked))
    np.testing.assert_array_equal(jax.jit(levels_from_masks)(masks), levels)


def test_levels_mark_what_each_network_sees() -> None:
    masks = sample(0, 4, (2, 3, 3), 2, 5)
    levels = np.asarray(jax.jit(levels_from_masks)(masks))
    for row, *parts in zip(levels, *masks, strict=True):
        for level, part in enumerate(parts):
            np.testing.assert_array_equal(np.flatnonzero(row == level), part)
    jax.tree.map(np.testing.assert_array_equal, masks_from_levels(levels), masks)


def test_each_sample_has_a_permutation_of_its_own() -> None:
    masks = sample(0, 16, (1, 14, 14), 20, 49)
    for part in masks:
        assert len({tuple(row) for row in part}) == 16


def test_a_key_gives_its_masks_and_no_other_key_does() -> None:
    first, again, other = (sample(seed, 4, (1, 14, 14), 20, 49) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.student != other.student).any(axis=1).all()


def test_every_position_is_equally_likely_to_be_seen() -> None:
    """Frequencies over 4000 samples of one fixed seed lie within five standard deviations."""
    count = 4000
    masks = sample(0, count, (1, 4, 4), 4, 10)
    for part, probability in zip(masks, (4 / 16, 6 / 16, 6 / 16), strict=True):
        frequency = np.bincount(part.ravel(), minlength=16) / count
        bound = 5 * (probability * (1 - probability) / count) ** 0.5
        np.testing.assert_allclose(frequency, probability, atol=bound)


def test_visible_positions_are_independent_of_each_other() -> None:
    """All 120 pairs of 16 positions come up as the student's two equally often."""
    masks = sample(1, 12_000, (1, 4, 4), 2, 8)
    pairs, counts = np.unique(masks.student, axis=0, return_counts=True)
    assert len(pairs) == 120
    assert abs(counts - 100).max() < 50


@pytest.mark.parametrize(
    ("ratio", "floor", "visible"),
    [
        (0.90, "masked", 20),  # AMD and VideoMAE: floor(176.4) masked
        (0.75, "masked", 49),
        (0.75, "visible", 49),
        (0.90, "visible", 19),
        (0.95, "visible", 9),  # DMAE's code; its paper says ten
        (0.98, "visible", 3),  # DMAE's code; its paper says four
        (0.98, "masked", 4),
    ],
)
def test_visible_counts_are_those_of_the_released_codes(ratio: float, floor: str, visible: int) -> None:
    assert visible_count(196, ratio, floor) == visible


@given(st.integers(1, 400), st.floats(0, 1))
def test_either_floor_is_within_one_of_the_ratio(positions: int, ratio: float) -> None:
    assume(ratio < 1)
    seen = [visible_count(positions, ratio, floor) for floor in ("masked", "visible")]
    exact = positions * (1 - ratio)
    assert exact - 1e-6 <= seen[0] < exact + 1 + 1e-6
    assert exact - 1 - 1e-6 < seen[1] <= exact + 1e-6


@pytest.mark.parametrize(("student", "teacher"), [(5, 4), (0, 4), (4, 10)])
def test_impossible_counts_are_an_error_that_names_them(student: int, teacher: int) -> None:
    with pytest.raises(ValueError, match=rf"student \({student}\) <= teacher \({teacher}\) <= all \(9\)"):
        nested_masks(jax.random.key(0), 2, (1, 3, 3), student, teacher)
