"""Any kind of video by frame number: a file, its bytes, one image a frame, or pixels."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from amd_jax.data import transforms
from amd_jax.data.container import Clock, Container, UnreadableVideo, check_regular, refused
from amd_jax.data.example import EncodedFrames, EncodedVideo, FrameFiles, Video, VideoFile

__all__ = ["OpenVideo", "UnreadableVideo", "open_video"]


class OpenVideo(Protocol):
    """A video while it is open."""

    @property
    def count(self) -> int:
        """Number of frames, at least one."""

    def read(self, indices: np.ndarray, channels: int) -> np.ndarray:
        """Frames by number, in this order and as often as they are named.

        Args:
          indices: ints [n] in [0, count), n at least one.
          channels: 1 (grey) or 3 (RGB).

        Returns:
          uint8 [n, H, W, channels].

        Raises:
          UnreadableVideo: a frame that is asked for cannot be read.
          IndexError: an index out of range, or none at all.
        """


@contextlib.contextmanager
def open_video(content: Video, seconds: float = 30.0) -> Iterator[OpenVideo]:
    """Opens a video of any kind for reading frames.

    Args:
      content: the video.
      seconds: how long opening, and each reading, may take. The clock is looked at between packets and
        between images, and FFmpeg looks at it while it waits for a file. It cannot bound what hangs in the
        system, such as a read from a network disk that is gone.

    Raises:
      UnreadableVideo: it is not a video, or has no frame.
      ConfigError: it takes PyAV, which is not installed.
    """
    if isinstance(content, np.ndarray):
        yield _Pixels(content)
    elif isinstance(content, FrameFiles | EncodedFrames):
        yield _Images(content, seconds)
    else:
        assert isinstance(content, VideoFile | EncodedVideo)
        inside = content.path if isinstance(content, VideoFile) else content.data
        with contextlib.closing(Container(inside, seconds)) as container:
            yield container


class _Pixels:
    """Pixels in memory, uint8 [T, H, W, C]."""

    def __init__(self, pixels: np.ndarray) -> None:
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise UnreadableVideo(f"pixels of shape {pixels.shape} and type {pixels.dtype} are not a video")
        self._pixels = pixels

    @property
    def count(self) -> int:
        return len(self._pixels)

    def read(self, indices: np.ndarray, channels: int) -> np.ndarray:
        indices = _checked(indices, self.count)
        if self._pixels.shape[3] == channels:
            return self._pixels[indices]
        return np.stack([transforms.decode(self._pixels[index], channels) for index in indices])


class _Images:
    """One image a frame."""

    def __init__(self, content: FrameFiles | EncodedFrames, seconds: float) -> None:
        self.count = content.count if isinstance(content, FrameFiles) else len(content.images)
        if self.count < 1:
            raise UnreadableVideo(f"{getattr(content, 'folder', 'a video')}: no frames")
        self._content = content
        self._seconds = seconds

    def read(self, indices: np.ndarray, channels: int) -> np.ndarray:
        indices = _checked(indices, self.count)
        clock = Clock(self._seconds)
        numbers, places = np.unique(indices, return_inverse=True)
        images = []
        for number in numbers.tolist():
            with refused(self._name(number)):
                clock.check()
                images.append(transforms.decode(self._encoded(number), channels))
                if images[-1].shape != images[0].shape:
                    raise UnreadableVideo(f"of another size than {self._name(int(numbers[0]))}")
        return np.stack(images)[places]

    def _name(self, number: int) -> str:
        if isinstance(self._content, EncodedFrames):
            return f"frame {number}"
        return os.path.join(self._content.folder, self._content.template.format(self._content.first + number))

    def _encoded(self, number: int) -> bytes:
        if isinstance(self._content, EncodedFrames):
            return self._content.images[number]
        path = self._name(number)
        check_regular(path)
        return Path(path).read_bytes()


def _checked(indices: np.ndarray, count: int) -> np.ndarray:
    """Raises IndexError unless there are indices and all are in [0, count)."""
    indices = np.asarray(indices)
    if indices.size == 0 or indices.min() < 0 or indices.max() >= count:
        raise IndexError(f"frames {indices.tolist()} of {count}")
    return indices
