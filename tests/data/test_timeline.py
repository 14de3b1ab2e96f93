"""When frames are shown and what has to be decoded, from packets written out by hand."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amd_jax.data.timeline import Stretch, Timeline, timeline


@dataclasses.dataclass(frozen=True)
class Packet:
    """What a timeline asks of a packet."""

    pts: int | None
    dts: int | None = None
    is_keyframe: bool = False
    is_discard: bool = False
    is_corrupt: bool = False


def stored(times: Sequence[int], keys: Sequence[int] = (0,)) -> list[Packet]:
    """Packets shown at `times`, one decoded in each step of time from before the first."""
    start = min(times) - 2
    return [Packet(at, start + number, number in keys) for number, at in enumerate(times)]


def line(packets: Sequence[Packet], codec: str = "h264") -> Timeline:
    found = timeline(iter(packets), codec)
    assert found is not None
    return found


# Stored I P b b P b b, twice, the second group open: its first two b's are shown before its I.
OPEN = stored([0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11], keys=(0, 7))


def test_frames_are_in_the_order_they_are_shown():
    found = line(OPEN)
    assert found.count == 13
    assert found.times == list(range(13))
    assert found.packets == [0, 2, 3, 1, 5, 6, 4, 8, 9, 7, 11, 12, 10]
    assert found.keys == [(0, 0), (7, 9)]


def test_a_frame_is_decoded_from_the_key_frame_that_it_is_shown_after():
    found = line(OPEN)
    assert [found.start(frame) for frame in range(13)] == [0] * 9 + [7] * 4


def test_a_gap_is_left_out_where_a_key_frame_follows_it():
    found = line(OPEN)
    assert found.stretches([1]) == [Stretch(0, 2, [1])]
    assert found.stretches([1, 2, 4]) == [Stretch(0, 5, [1, 2, 4])]
    assert found.stretches([1, 10]) == [Stretch(0, 2, [1]), Stretch(7, 11, [10])]
    assert found.stretches([5, 9]) == [Stretch(0, 7, [5, 9])]  # nothing lies between
    assert found.stretches([7, 12]) == [Stretch(0, 10, [7, 12])]
    assert found.stretches([11]) == [Stretch(7, 12, [11])]


def test_without_times_everything_is_decoded():
    assert timeline(iter([Packet(0, 0, True), Packet(None, 1)]), "h264") is None
    assert timeline(iter([Packet(0, 0, True), Packet(0, 1)]), "h264") is None
    assert Timeline(5).stretches([1, 4]) == [Stretch(0, -1, [1, 4])]
    assert Timeline(5).on_screen(np.array([4, 0])).tolist() == [4, 0]


def test_hidden_packets_are_no_frames_but_may_start_them():
    packets = [dataclasses.replace(p, is_discard=p.pts < 2) for p in stored([0, 1, 2, 3])]
    found = line(packets)
    assert (found.times, found.packets, found.start(0)) == ([2, 3], [2, 3], 0)


def test_what_comes_before_the_first_key_frame_is_no_frame():
    assert line(stored([5, 3, 4, 6], keys=(1,))).times == [3, 4, 6]
    assert line(stored([4, 2, 3, 5], keys=(0,))).times == [4, 5]
    assert line(stored([0, 1], keys=())).count == 0


def test_at_a_cut_off_end_frames_with_a_hole_before_them_are_left_out():
    whole = stored([0, 3, 1, 2, 6, 4, 5, 9, 7, 8])
    assert line(whole[:10]).times == list(range(10))
    assert line(whole[:9]).times == list(range(8))
    assert line(whole[:8]).times == list(range(7))
    cut = [*whole[:9], dataclasses.replace(whole[9], is_corrupt=True)]
    assert line(cut).times == list(range(8))


def test_a_hole_among_complete_frames_stays():
    times = [0, 1, 2, 9, 10, 30]
    assert line([Packet(at, at, at == 0) for at in times]).times == times


def test_a_variable_rate_is_seen_at_even_steps_of_time():
    # Steps of 10 / 5: their middles are at 1, 3, 5, 7, 9 and 11.
    found = Timeline(6, [0, 1, 2, 3, 4, 10], list(range(6)), [(0, 0)])
    assert found.on_screen(np.arange(6)).tolist() == [1, 3, 4, 4, 4, 5]
    assert Timeline(1, [7], [0], [(0, 7)]).on_screen(np.array([0, 0])).tolist() == [0, 0]


@given(
    count=st.integers(1, 400),
    start=st.integers(-(10**9), 10**9),
    rate=st.fractions(1, 240, max_denominator=1001),
    base=st.sampled_from([1000, 90000, 600, 15360]),
)
def test_a_constant_rate_in_any_units_is_seen_frame_by_frame(count, start, rate, base):
    times = [start + round(number * base / rate) for number in range(count)]
    found = line(stored(times, keys=range(count)))
    assert found.on_screen(np.arange(count)).tolist() == list(range(count))


@given(steps=st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_any_rate_gives_frames_in_order_from_first_to_last(steps):
    times = np.cumsum(steps).tolist()
    seen = Timeline(len(times), times, list(range(len(times)))).on_screen(np.arange(len(times)))
    assert (np.diff(seen) >= 0).all()
    assert 0 <= seen[0] <= seen[-1] == len(times) - 1


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_only_packets_of_vp8_are_looked_into(codec):
    assert line(stored([0, 1]), codec).count == 2  # these packets have no bytes
