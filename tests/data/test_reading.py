"""Decoding, and what stands in for examples that cannot be read."""

import numpy as np
import pytest

from amd_jax.data.example import Example
from amd_jax.data.reading import Failures, Reader, Unreadable
from amd_jax.data.sampling import Window
from amd_jax.errors import DataError
from tests.data.conftest import Numbers

KEY = (5, 0, 2)


def reader(source: Numbers, channels: int = 3, frames: int = 1) -> Reader:
    return Reader(source, channels, Window(frames, 2))


class Clips(Numbers):
    """Videos of eight frames [8, 6, 4, 3] whose pixels are the number of the frame."""

    def __getitem__(self, index: int) -> Example:
        super().__getitem__(index)
        return Example(
            np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((6, 4, 3), np.uint8), index
        )


def test_an_image_is_read_as_one_frame_of_the_channels_asked_for():
    source = Numbers(3)
    frames, label = reader(source).read(2, KEY)
    assert np.array_equal(frames, np.asarray(source[2].content)[None])
    assert label == 2
    assert reader(source, 1).read(2, KEY)[0].shape == (1, 20, 24, 1)


def test_of_a_video_the_frames_are_read_that_the_sampler_draws_by_the_key():
    one = reader(Clips(3), frames=3)
    frames, label = one.read(1, KEY)
    assert (frames.shape, label) == ((3, 6, 4, 3), 1)
    numbers = frames[:, 0, 0, 0]
    assert np.array_equal(np.unique(frames.reshape(3, -1), axis=1)[:, 0], numbers)  # whole frames
    assert sorted(numbers) == list(numbers)
    assert np.array_equal(frames, one.read(1, KEY)[0])
    drawn = {tuple(one.read(1, (5, epoch, 2))[0][:, 0, 0, 0]) for epoch in range(20)}
    assert len(drawn) == 2  # windows of six frames end at the seventh or the eighth


def test_all_clips_of_a_video_come_one_after_the_other():
    class Two(Window):
        def __call__(self, count, rng=None):
            return np.array([[0, 1], [6, 7]])

    frames, _ = Reader(Clips(1), 1, Two(2, 2)).read(0, KEY)
    assert frames[:, 0, 0, 0].tolist() == [0, 1, 6, 7]
    assert frames.shape == (4, 6, 4, 1)


def test_the_next_readable_example_stands_in_and_every_failure_is_told():
    one = reader(Numbers(6, bad=(0, 4, 5)))
    failures: Failures = []
    assert one.read_or_next(4, KEY, failures)[1] == 1  # behind the last comes the first
    assert failures == [(4, "gone"), (5, "gone"), (0, "gone")]
    with pytest.raises(OSError, match="gone"):
        one.read(4, KEY)


def test_fifty_in_a_row_are_given_up():
    with pytest.raises(DataError, match="50 unreadable examples in a row, from number 7"):
        reader(Numbers(100, bad=tuple(range(7, 57)))).read_or_next(7, KEY, [])
    assert reader(Numbers(100, bad=tuple(range(8, 57)))).read_or_next(8, KEY, [])[1] == 57


def test_an_example_counts_once_and_the_limit_is_an_error():
    unreadable = Unreadable(Numbers(9), limit=2)
    unreadable.report([(3, "gone"), (3, "gone"), (4, "gone")])
    unreadable.report([(3, "gone")])
    assert len(unreadable) == 2
    with pytest.raises(DataError, match=r"3 unreadable examples, the last number 5; data\.max_corrupt=2"):
        unreadable.report([(5, "gone")])
