"""When the frames of a video are shown, from its packets, and what has to be decoded for some of them.

Headers are not asked: they are often wrong. Frame i is the one on screen in the middle of the i-th of
`count` equal steps of time, so that clips have a uniform pace: of a constant rate, however its times are
rounded, that is the i-th frame of a decode from start to end, of a variable rate the last one shown by then.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Stretch(NamedTuple):
    """Packets first … last, decoded in one go for some of their frames."""

    first: int
    last: int
    frames: list[int]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The frames of a video in the order they are shown.

    Attributes:
      times: when each is shown, in the units of the stream; None where the packets do not say.
      packets: the number of the packet that holds each.
      keys: the key frames by packet number: (packet, time).
    """

    count: int
    times: list[int] | None = None
    packets: list[int] = dataclasses.field(default_factory=list)
    keys: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def on_screen(self, steps: np.ndarray) -> np.ndarray:
        """The frames shown in the middle of these of `count` equal steps of time."""
        if self.times is None or self.count == 1:
            return steps
        passed = np.array([time - self.times[0] for time in self.times], np.float64)
        return np.searchsorted(passed * ((self.count - 1) / passed[-1]), steps + 0.5, side="right") - 1

    def start(self, frame: int) -> int:
        """The packet of the key frame that decoding `frame` starts from.

        Frames that are stored after a key frame but shown before it (an open group of pictures) need the one
        before.
        """
        assert self.times is not None
        packet, shown = self.packets[frame], self.times[frame]
        fitting = (key for key, at in reversed(self.keys) if key <= packet and at <= shown)
        return next(fitting, 0)

    def stretches(self, frames: Sequence[int]) -> list[Stretch]:
        """What to decode for these ascending frames: a gap that holds a key frame is left out."""
        if self.times is None:
            return [Stretch(0, -1, list(frames))]
        found: list[Stretch] = []
        for frame in frames:
            first, last = self.start(frame), self.packets[frame]
            if found and first <= found[-1].last + 1:
                open_one = found.pop()
                first, last = open_one.first, max(last, open_one.last)
                found.append(Stretch(first, last, [*open_one.frames, frame]))
            else:
                found.append(Stretch(first, last, [frame]))
        return found


def timeline(packets: Iterator[Any], codec: str) -> Timeline | None:
    """What the packets of a stream, in the order they are stored, say; None if some have no time.

    Left out are packets that an edit list hides, alternative references of VP8, which are never shown, those
    that are cut short, and what is stored before the first key frame or shown before it and so cannot be
    decoded.
    """
    keys: list[tuple[int, int]] = []
    shown: list[tuple[int, int]] = []
    for number, packet in enumerate(packets):
        if packet.pts is None:
            return None
        if packet.is_keyframe and not packet.is_corrupt:
            keys.append((number, packet.pts))
        hidden = packet.is_discard or packet.is_corrupt or (codec == "vp8" and not memoryview(packet)[0] & 16)
        if not hidden and keys and packet.pts >= keys[0][1]:
            shown.append((packet.pts, number))
    shown.sort()
    times = [at for at, _ in shown]
    if len(set(times)) < len(times):
        return None
    return Timeline(len(shown), times, [number for _, number in shown], keys)
