"""From what a user has (a path, a picture, pixels) to the uint8 views that a model was trained on."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from amd_jax.convert.files.stated import Stated, resizing, usual
from amd_jax.convert.network import Network
from amd_jax.data import clips, transforms
from amd_jax.data.example import VideoFile
from amd_jax.data.folders import VIDEO_SUFFIXES, frame_files
from amd_jax.data.sampling import Sampler, StridedViews
from amd_jax.data.video import open_video
from amd_jax.errors import DataError

STRIDE = 4  # frames from one to the next of a clip, where nobody says otherwise: Kinetics'


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How an input is read, resized and cropped.

    Attributes:
      frames: of a clip; 1 for images.
      size: height and width in pixels that the model sees.
      channels: 1 (grey) or 3 (colour).
      mean: subtracted from pixels in [0, 1], by channel; `std` divides them. The model does that.
      resize: what comes before the centre crop: height and width, or the short side in pixels of what the
        image is scaled to cover, which has the shape of `size`.
      interpolation: a name of Pillow's filters, as "bicubic".
      sampler: which frames of a video; its clips are views.
      crops: views along the longer side of a video.
      assumed: what nobody stated, for people; empty where everything was.
    """

    frames: int
    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, ...]
    interpolation: str
    sampler: Sampler
    crops: int = 1
    assumed: str = ""

    def __call__(self, given: Any) -> np.ndarray:
        """The views of an input, uint8 [views, T, H, W, C].

        Args:
          given: a path of an image, a video or a folder of frames; a Pillow image; uint8 pixels, [H, W] or
            [H, W, C] of an image, [T, H, W, C] of a video, which has all its frames.

        Raises:
          DataError: it is none of these, cannot be read, or is a video for a model of images or the reverse.
        """
        try:
            return self._views(_opened(given))
        except OSError as error:
            raise DataError(f"{_name(given)}: {error.strerror or error}") from error

    def _views(self, content: Any) -> np.ndarray:
        if self.frames == 1:
            if not isinstance(content, bytes) and getattr(content, "ndim", 4) > 3:
                raise OSError("a video, but these are weights for images")
            return self._image(transforms.decode(content, self.channels))[None, None]
        if isinstance(content, bytes) or getattr(content, "ndim", 4) < 4:
            raise OSError("an image, but these are weights for videos")
        with open_video(content) as video:
            wanted = self.sampler(video.count)
            frames = video.read(wanted.ravel(), self.channels)
        cropped = clips.crops_along(frames, self.size, self.crops)  # [crops, clips * T, …]
        by_clip = cropped.reshape(self.crops, len(wanted), self.frames, *cropped.shape[2:])
        return by_clip.swapaxes(0, 1).reshape(-1, *by_clip.shape[2:])

    def _image(self, image: np.ndarray) -> np.ndarray:
        """Resized, and the centre of it, [H, W, C]."""
        to = self.resize
        if len(to) == 1:
            scale = to[0] / min(self.size)
            to = transforms.covering(image.shape[:2], [round(side * scale) for side in self.size])
        # A crop of another shape than the image may not fit into what its short side alone was scaled to.
        height, width = (max(a, b) for a, b in zip(to, self.size, strict=True))
        resized = transforms.resize(image, height, width, self.interpolation)
        return transforms.center_crop(resized, *self.size)


def make(network: Network, said: Stated, clips: int, crops: int, sampler: Sampler | None) -> Preparation:
    """The preparation that weights want, as far as it is stated; what is not is as our evaluation has it.

    Args:
      network: of the weights.
      said: what is known of its pixels.
      clips: of a video.
      crops: of a video.
      sampler: of a video's frames, where the run is known that trained on them.
    """
    size, frames = network.size, network.encoder.grid[0]
    mean, std = said.per_channel("mean", network.channels), said.per_channel("std", network.channels)
    assumed = []
    if not mean:
        mean, std = usual(network.channels)
        assumed.append("0.5 as mean and std" if network.channels == 1 else "ImageNet's mean and std")
    frames *= network.patch[0]
    if frames > 1 and sampler is None:
        sampler = StridedViews(frames, STRIDE, clips)
        assumed.append(f"every {STRIDE}th frame")
    return Preparation(
        frames=frames,
        size=size,
        channels=network.channels,
        mean=mean,
        std=std,
        resize=said.before_crop(size),
        interpolation=said.interpolation or resizing(network.video),
        sampler=sampler or StridedViews(1, 1, 1),
        crops=crops,
        assumed=" and ".join(assumed),
    )


def several(given: Any, frames: int) -> list[Any]:
    """Inputs one by one: of a list, of a batch of pixels, or of the single one that it is."""
    if isinstance(given, np.ndarray):
        one = 4 if frames > 1 else 3
        return list(given) if given.ndim > one or (frames == 1 and given.ndim == 4) else [given]
    if isinstance(given, str | os.PathLike | Image.Image):
        return [given]
    if not isinstance(given, Iterable):
        raise DataError(f"{_name(given)}: give paths, Pillow images or arrays of pixels")
    return list(given)


def _opened(given: Any) -> Any:
    """Bytes of an image, pixels, or a video to be opened."""
    if isinstance(given, Image.Image):
        return np.asarray(given.convert("RGB"))
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (2, 3, 4):
            raise OSError(f"pixels of shape {given.shape} and type {given.dtype}; uint8 is read")
        return given
    if not isinstance(given, str | os.PathLike):
        raise OSError("neither a path, nor a Pillow image, nor an array")
    path = os.fspath(given)
    if os.path.isdir(path):
        return frame_files(path)
    if path.lower().endswith(VIDEO_SUFFIXES):
        if not os.path.exists(path):
            raise OSError("no such file")
        return VideoFile(path)
    return Path(path).read_bytes()


def _name(given: Any) -> str:
    """What a message calls an input."""
    return os.fspath(given) if isinstance(given, str | os.PathLike) else f"a {type(given).__name__}"
