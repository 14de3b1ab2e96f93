"""Which frames of a video are wanted: indices [clips, frames] from the number of frames alone.

The rules are those of AMD's `dataset/datasets.py`, down to the rounding, which decides what a short video
gives. Two kinds of data are told apart: `dense` (Kinetics: long videos, a clip is a window of a fixed number
of frames) and `segments` (Something-Something: the whole video is the clip). A sampler is called with the
number of frames, at least one, and a generator, and is picklable; those of a test draw nothing. Indices do
not decrease within a clip and may repeat.
"""

import dataclasses
from typing import Protocol

import numpy as np

from amd_jax.errors import ConfigError

ROLES = ("pretrain", "finetune", "test")


class Sampler(Protocol):
    """From the number of frames of a video to indices of frames, int64 [clips, frames]."""

    def __call__(self, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Indices in [0, count); a sampler that draws needs `rng`."""


@dataclasses.dataclass(frozen=True)
class Strided:
    """Every `stride`-th frame from a random start: dense pre-training (`VideoMAE._sample_train_indices`).

    The start is uniform in [0, count - frames * stride], 0 for a video that is not longer. Where a further
    step would reach the last frame or pass it, the frame before that step is repeated.
    """

    frames: int
    stride: int

    def __call__(self, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """One clip, [1, frames]."""
        spare = _checked(count) - self.frames * self.stride
        start = _generator(rng).integers(spare + 1) if spare > 0 else 0
        steps = np.minimum(np.arange(self.frames), max(count - 2 - start, 0) // self.stride)
        return (start + self.stride * steps)[None]


@dataclasses.dataclass(frozen=True)
class Window:
    """Evenly spaced frames over a random window: dense fine-tuning and segments' pre-training.

    `VideoClsDataset.loadvideo_decord` and `VideoMAE_SSV2.load_frame`. The window has frames * stride frames
    and its end is uniform in [frames * stride, count); both of its ends are seen. A video that is not longer
    than the window gives count // stride frames evenly spaced over all of it, then the last one, repeated.
    """

    frames: int
    stride: int

    def __call__(self, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """One clip, [1, frames]."""
        window = self.frames * self.stride
        if _checked(count) <= window:
            seen = count // self.stride
            points = np.concatenate([np.linspace(0, count, seen), np.full(self.frames - seen, float(count))])
            return _whole(points.clip(0, count - 1))[None]
        end = int(_generator(rng).integers(window, count))
        return _whole(np.linspace(end - window, end, self.frames).clip(end - window, end - 1))[None]


@dataclasses.dataclass(frozen=True)
class Segments:
    """A uniform draw from each of `frames` equal segments (`SSRawFrameClsDataset.load_frame`).

    A segment has count // frames frames; what remains at the end is never seen. A shorter video gives all its
    frames, after its first one as often as it takes.
    """

    frames: int

    def __call__(self, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """One clip, [1, frames]."""
        length = _checked(count) // self.frames
        if length == 0:
            return np.arange(count - self.frames, count).clip(0)[None]
        return (np.arange(self.frames) * length + _generator(rng).integers(length, size=self.frames))[None]


@dataclasses.dataclass(frozen=True)
class StridedViews:
    """Clips of `frames` at evenly spaced starts over every `stride`-th frame: the dense test.

    The strided frames are filled up with the last of them. Clip c starts at int(c * spare / (clips - 1)) of
    them, where `spare` is how many more than `frames` there are.
    """

    frames: int
    stride: int
    clips: int

    def __call__(self, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """All clips, [clips, frames]; draws nothing."""
        strided = np.arange(0, _checked(count), self.stride)
        spare = max(len(strided) - self.frames, 0)
        starts = _whole(np.arange(self.clips) * (spare / max(self.clips - 1, 1)))
        places = starts[:, None] + np.arange(self.frames)
        return strided[np.minimum(places, len(strided) - 1)]


@dataclasses.dataclass(frozen=True)
class SegmentViews:
    """The first frame of each segment, the middle one and so on, dealt out to the clips: the segments' test.

    With t = count / frames, the indices int(t * x) and, for y in 2 … clips, int(t / y + t * x) are sorted,
    and clip c takes every clips-th of them from the c-th on. The released tests have two clips.
    """

    frames: int
    clips: int

    def __call__(self, count: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """All clips, [clips, frames]; draws nothing."""
        length = _checked(count) / self.frames
        firsts = [0.0, *(length / part for part in range(2, self.clips + 1))]
        points = np.array(firsts)[:, None] + length * np.arange(self.frames)
        return np.sort(_whole(points), axis=None).reshape(self.frames, self.clips).T


def make(name: str, role: str, *, frames: int, stride: int, clips: int) -> Sampler:
    """The sampler of a kind of data for a role; raises ConfigError for an unknown name or role.

    Args:
      name: `dense` or `segments`.
      role: `pretrain`, `finetune` (also the validation during training) or `test`.
      frames: frames of a clip.
      stride: frames from one to the next; only `segments` pre-training looks at it among `segments`.
      clips: clips of a video; only a test has more than one.
    """
    window = Window(frames, stride)
    samplers: dict[str, tuple[Sampler, Sampler, Sampler]] = {
        "dense": (Strided(frames, stride), window, StridedViews(frames, stride, clips)),
        "segments": (window, Segments(frames), SegmentViews(frames, clips)),
    }
    if name not in samplers or role not in ROLES:
        raise ConfigError(
            f"no frame sampling {name!r} for {role!r};"
            f" there are {', '.join(samplers)}, each for {', '.join(ROLES)}"
        )
    return samplers[name][ROLES.index(role)]


def _checked(count: int) -> int:
    """A number of frames; raises ValueError for an empty video."""
    if count < 1:
        raise ValueError(f"a video of {count} frames has none to choose from")
    return count


def _generator(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is None:
        raise ValueError("frames are drawn here: give a generator")
    return rng


def _whole(points: np.ndarray) -> np.ndarray:
    """Towards zero, as `int()` and `astype(int)` do."""
    return points.astype(np.int64)
