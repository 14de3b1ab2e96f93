"""What is done to one decoded example: uint8 views [views, T, H, W, C]; an image is a video of one frame.

Images and clips go through the same things in other orders and with other filters, as their recipes have it.
Images: crop and resize (bicubic, antialiased), flip, RandAugment, erasing. Clips (MCG-NJU/AMD,
dataset/datasets.py, `_aug_frame`): RandAugment on whole frames, crop and resize (bilinear), flip, erasing,
each with one draw for all frames.
"""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from amd_jax.config import height_width
from amd_jax.data import clips, transforms
from amd_jax.data.policy import GREY, Policy, mean_fill, parse
from amd_jax.data.randaugment import rand_augment, random_erasing


@dataclasses.dataclass(frozen=True)
class TrainViews:
    """Differently augmented views of one image or clip."""

    repeats: int
    frames: int
    size: tuple[int, int]  # height and width
    channels: int
    crop: str  # "resized" or "multi_scale"
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool
    policy: Policy | None
    erasing: float
    mean: tuple[float, ...]  # what erasing's noise is normal with, after normalisation
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, data: ConfigDict) -> "TrainViews":
        """From the `data` section; raises ConfigError for a policy that is not understood."""
        fill = mean_fill(data.mean) if data.frames == 1 else GREY
        return cls(
            repeats=data.repeats,
            frames=data.frames,
            size=height_width(data.image_size),
            channels=data.channels,
            crop=data.crop,
            crop_scale=tuple(data.crop_scale),
            crop_ratio=tuple(data.crop_ratio),
            flip=data.flip,
            policy=parse(data.randaugment, fill) if data.randaugment else None,
            erasing=data.erasing,
            mean=tuple(data.mean),
            std=tuple(data.std),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(views, T, H, W, C)."""
        return self.repeats, self.frames, *self.size, self.channels

    def __call__(self, frames: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """Views of `frames`, uint8 [T, H, W, C]; view v draws from a generator made of (*key, v)."""
        views = np.empty(self.shape, np.uint8)
        for number in range(self.repeats):
            rng = np.random.default_rng((*key, number))
            views[number] = self._image(frames[0], rng) if self.frames == 1 else self._clip(frames, rng)
        return views

    def least_scale(self, key: tuple[int, ...], height: int, width: int) -> float:
        """The part of an image's height and width at which no view of this key is smaller than `size`."""
        ratio, scales = transforms.ratio_for(self.crop_ratio, self.size), []
        for number in range(self.repeats):
            rng = np.random.default_rng((*key, number))
            box = transforms.crop_box(height, width, self.crop_scale, ratio, rng)
            scales += [wanted / there for wanted, there in zip(self.size, box[2:], strict=True)]
        return max(scales)

    def _image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = transforms.random_resized_crop(image, self.size, self.crop_scale, self.crop_ratio, rng)
        image = transforms.random_flip(image, rng) if self.flip else image
        if self.policy is not None:
            image = rand_augment(image, self.policy, rng)
        return random_erasing(image, self.erasing, rng, self.mean, self.std) if self.erasing else image

    def _clip(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.policy is not None:
            frames = rand_augment(frames, self.policy, rng)
        if self.crop == "multi_scale":
            frames = clips.multi_scale_crop(frames, self.size, rng)
        else:
            frames = clips.random_resized_crop(frames, self.size, self.crop_scale, self.crop_ratio, rng)
        frames = transforms.random_flip(frames, rng) if self.flip else frames
        return random_erasing(frames, self.erasing, rng, self.mean, self.std) if self.erasing else frames


@dataclasses.dataclass(frozen=True)
class EvalViews:
    """Views without chance: crops of an image, or of each of the clips of a video; one is the centre.

    View `clip * crops + crop` is crop `crop` of clip `clip`.
    """

    frames: int
    size: tuple[int, int]  # height and width
    channels: int
    clips: int = 1
    crops: int = 1

    @classmethod
    def from_config(cls, data: ConfigDict, clips: int = 1, crops: int = 1) -> "EvalViews":
        """From the `data` section."""
        return cls(data.frames, height_width(data.image_size), data.channels, clips, crops)

    @property
    def shape(self) -> tuple[int, ...]:
        """(views, T, H, W, C)."""
        return self.clips * self.crops, self.frames, *self.size, self.channels

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The views of `frames`, uint8 [clips * T, H, W, C], one clip after the other."""
        if self.frames == 1 and self.crops == 1:
            return np.stack([transforms.resize_center_crop(x, self.size) for x in frames]).reshape(self.shape)
        cropped = clips.crops_along(frames, self.size, self.crops)  # [crops, clips * T, …]
        by_clip = cropped.reshape(self.crops, self.clips, *self.shape[1:])
        return by_clip.swapaxes(0, 1).reshape(self.shape)
