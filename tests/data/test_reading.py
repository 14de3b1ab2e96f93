"""Decoding, and what stands in for examples that cannot be read."""

import numpy as np
import pytest

from amd_jax.config import ConfigError
from amd_jax.data.reading import Failures, Reader, Unreadable
from tests.data.conftest import Numbers


def test_an_example_is_read_as_pixels_of_the_channels_asked_for():
    source = Numbers(3)
    image, label = Reader(source, 3).read(2)
    assert np.array_equal(image, source[2].content)
    assert label == 2
    assert Reader(source, 1).read(2)[0].shape == (20, 24, 1)


def test_the_next_readable_example_stands_in_and_every_failure_is_told():
    reader = Reader(Numbers(6, bad=(0, 4, 5)), 3)
    failures: Failures = []
    assert reader.read_or_next(4, failures)[1] == 1  # behind the last comes the first
    assert failures == [(4, "gone"), (5, "gone"), (0, "gone")]
    with pytest.raises(OSError, match="gone"):
        reader.read(4)


def test_fifty_in_a_row_are_given_up():
    with pytest.raises(ConfigError, match="50 unreadable images in a row, from number 7"):
        Reader(Numbers(100, bad=tuple(range(7, 57))), 3).read_or_next(7, [])
    assert Reader(Numbers(100, bad=tuple(range(8, 57))), 3).read_or_next(8, [])[1] == 57


def test_an_example_counts_once_and_the_limit_is_an_error():
    unreadable = Unreadable(Numbers(9), limit=2)
    unreadable.report([(3, "gone"), (3, "gone"), (4, "gone")])
    unreadable.report([(3, "gone")])
    assert len(unreadable) == 2
    with pytest.raises(ConfigError, match=r"3 unreadable images, the last number 5; data\.max_corrupt=2"):
        unreadable.report([(5, "gone")])
