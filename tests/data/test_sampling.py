"""Which frames of a video are wanted: indices written out from the rules, and what holds for all videos."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amd_jax.data.sampling import ROLES, Segments, SegmentViews, Strided, StridedViews, Window, make
from amd_jax.errors import ConfigError

ALL = [(name, role) for name in ("dense", "segments") for role in ROLES]


class Draws:
    """A generator whose draws are the highest that are allowed, or the lowest."""

    def __init__(self, highest: bool) -> None:
        self.highest = highest

    def integers(self, low: int, high: int | None = None, size: int | None = None) -> np.ndarray | int:
        low, high = (0, low) if high is None else (low, high)
        drawn = high - 1 if self.highest else low
        return drawn if size is None else np.full(size, drawn)


LOW, HIGH = Draws(False), Draws(True)


def test_dense_pretraining_steps_from_a_random_start():
    sampler = Strided(16, 4)
    assert sampler(300, LOW).tolist() == [list(range(0, 64, 4))]
    assert sampler(300, HIGH).tolist() == [list(range(236, 300, 4))]
    assert sampler(65, HIGH).tolist() == [list(range(1, 65, 4))]
    assert sampler(64).tolist() == [list(range(0, 64, 4))]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (62, [*range(0, 61, 4)]),
        (61, [*range(0, 57, 4), 56]),  # a step from 56 would reach the last frame: not taken
        (16, [0, 4, 8, 12] + [12] * 12),
        (13, [0, 4, 8] + [8] * 13),
        (6, [0, 4] + [4] * 14),
        (5, [0] * 16),
        (2, [0] * 16),
        (1, [0] * 16),
    ],
)
def test_dense_pretraining_of_a_short_video_repeats_the_last_frame_it_steps_to(count, expected):
    assert Strided(16, 4)(count).tolist() == [expected]


def test_a_window_shows_both_its_ends():
    dense = Window(16, 4)
    # 64 / 15 = 4.2667 a step, cut to whole frames; the end itself is the frame before it.
    steps = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]
    assert dense(300, LOW).tolist() == [steps]
    assert dense(300, HIGH).tolist() == [[235 + step for step in steps]]
    assert dense(65, HIGH).tolist() == [steps]
    assert dense(64).tolist() == [steps]
    # 32 / 15 = 2.1333 a step
    half = [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31]
    assert Window(16, 2)(100, LOW).tolist() == [half]
    assert Window(16, 2)(100, HIGH).tolist() == [[67 + step for step in half]]


@pytest.mark.parametrize(
    ("stride", "count", "expected"),
    [
        (4, 40, [0, 4, 8, 13, 17, 22, 26, 31, 35] + [39] * 7),  # 10 points, 40 / 9 a step
        (4, 16, [0, 5, 10] + [15] * 13),
        (4, 8, [0] + [7] * 15),
        (4, 4, [0] + [3] * 15),
        (4, 3, [2] * 16),
        (4, 1, [0] * 16),
        (2, 20, [0, 2, 4, 6, 8, 11, 13, 15, 17] + [19] * 7),
        (2, 16, [0, 2, 4, 6, 9, 11, 13] + [15] * 9),
        (2, 2, [0] + [1] * 15),
        (2, 1, [0] * 16),
    ],
)
def test_a_window_over_a_short_video_ends_with_its_last_frame(stride, count, expected):
    assert Window(16, stride)(count).tolist() == [expected]


def test_segments_give_one_frame_each():
    sampler = Segments(16)
    assert sampler(100, LOW).tolist() == [list(range(0, 96, 6))]
    assert sampler(100, HIGH).tolist() == [list(range(5, 96, 6))]
    assert sampler(31, HIGH).tolist() == [list(range(16))]
    assert sampler(16, HIGH).tolist() == [list(range(16))]


def test_segments_of_a_short_video_are_filled_up_at_the_front():
    assert Segments(16)(15).tolist() == [[0, *range(15)]]
    assert Segments(16)(3).tolist() == [[0] * 14 + [1, 2]]
    assert Segments(16)(1).tolist() == [[0] * 16]


def test_dense_test_clips_start_evenly_spaced():
    clips = StridedViews(16, 4, 5)(300)  # 75 strided frames: 59 / 4 = 14.75 from start to start
    assert clips[:, 0].tolist() == [0, 4 * 14, 4 * 29, 4 * 44, 4 * 59]
    assert all(clip.tolist() == list(range(clip[0], clip[0] + 64, 4)) for clip in clips)
    assert StridedViews(16, 4, 1)(300).tolist() == [list(range(0, 64, 4))]
    # 18 strided frames
    assert StridedViews(16, 4, 5)(70)[:, 0].tolist() == [0, 0, 4, 4, 8]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (64, [*range(0, 64, 4)]),
        (30, [0, 4, 8, 12, 16, 20, 24, 28] + [28] * 8),
        (16, [0, 4, 8, 12] + [12] * 12),
        (1, [0] * 16),
    ],
)
def test_dense_test_clips_of_a_short_video_are_equal(count, expected):
    assert StridedViews(16, 4, 5)(count).tolist() == [expected] * 5


def test_segment_test_clips_are_interleaved():
    # t = 2: the even and the odd frames.
    assert SegmentViews(16, 2)(32).tolist() == [list(range(0, 32, 2)), list(range(1, 32, 2))]
    # t = 6.25: int(6.25 x) and int(3.125 + 6.25 x)
    assert SegmentViews(16, 2)(100).tolist() == [
        [0, 6, 12, 18, 25, 31, 37, 43, 50, 56, 62, 68, 75, 81, 87, 93],
        [3, 9, 15, 21, 28, 34, 40, 46, 53, 59, 65, 71, 78, 84, 90, 96],
    ]
    assert SegmentViews(16, 2)(16).tolist() == [list(range(16))] * 2
    assert SegmentViews(16, 2)(1).tolist() == [[0] * 16] * 2
    # t = 0.5: 0 0 1 1 … and the same half a frame later; sorted, each frame four times
    assert SegmentViews(16, 2)(8).tolist() == [sorted([*range(8)] * 2)] * 2


def test_a_single_segment_test_clip_has_the_first_frames():
    assert SegmentViews(16, 1)(32).tolist() == [list(range(0, 32, 2))]


@pytest.mark.parametrize(("name", "role"), ALL)
@given(
    count=st.integers(1, 3000),
    frames=st.integers(1, 40),
    stride=st.integers(1, 9),
    clips=st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
def test_indices_are_in_range_and_do_not_decrease(name, role, count, frames, stride, clips, seed):
    sampler = make(name, role, frames=frames, stride=stride, clips=clips)
    indices = sampler(count, np.random.default_rng(seed))
    assert indices.shape == (clips if role == "test" else 1, frames)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < count
    assert (np.diff(indices) >= 0).all()
    copy = pickle.loads(pickle.dumps(sampler))
    assert copy == sampler
    assert np.array_equal(copy(count, np.random.default_rng(seed)), indices)


@pytest.mark.parametrize(("name", "role"), ALL)
def test_only_a_test_draws_nothing(name, role):
    sampler = make(name, role, frames=16, stride=4, clips=5)
    if role == "test":
        assert sampler(300).shape == (5, 16)
    else:
        with pytest.raises(ValueError, match="generator"):
            sampler(300)
    with pytest.raises(ValueError, match="0 frames"):
        sampler(0)


def test_starts_are_uniform_over_all_places():
    rng = np.random.default_rng(0)
    starts = [int(Strided(16, 4)(67, rng)[0, 0]) for _ in range(400)]
    assert set(starts) == {0, 1, 2, 3}
    ends = [int(Window(16, 4)(67, rng)[0, 0]) for _ in range(400)]
    assert set(ends) == {0, 1, 2}


@pytest.mark.parametrize(("name", "role"), [("even", "test"), ("dense", "train")])
def test_an_unknown_name_or_role_is_refused(name, role):
    with pytest.raises(ConfigError, match="dense, segments, each for pretrain, finetune, test"):
        make(name, role, frames=16, stride=4, clips=1)
