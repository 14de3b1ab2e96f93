"""What is done to one decoded example: uint8 views [views, T, H, W, C]; an image is a video of one frame."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from amd_jax.data import transforms
from amd_jax.data.randaugment import Policy, mean_fill, parse, rand_augment, random_erasing


@dataclasses.dataclass(frozen=True)
class TrainViews:
    """Differently augmented views of an image: crop, flip, RandAugment, erasing."""

    repeats: int
    image_size: int
    channels: int
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
        return cls(
            repeats=data.repeats,
            image_size=data.image_size,
            channels=data.channels,
            crop_scale=tuple(data.crop_scale),
            crop_ratio=tuple(data.crop_ratio),
            flip=data.flip,
            policy=parse(data.randaugment, mean_fill(data.mean)) if data.randaugment else None,
            erasing=data.erasing,
            mean=tuple(data.mean),
            std=tuple(data.std),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(views, T, H, W, C)."""
        return self.repeats, 1, self.image_size, self.image_size, self.channels

    def __call__(self, image: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """Views of `image`, uint8 [H, W, C]; view v draws from a generator made of (*key, v)."""
        views = np.empty(self.shape, np.uint8)
        for number in range(self.repeats):
            views[number, 0] = self._augment(image, np.random.default_rng((*key, number)))
        return views

    def _augment(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = transforms.random_resized_crop(image, self.image_size, self.crop_scale, self.crop_ratio, rng)
        image = transforms.random_flip(image, rng) if self.flip else image
        if self.policy is not None:
            image = rand_augment(image, self.policy, rng)
        return random_erasing(image, self.erasing, rng, self.mean, self.std) if self.erasing else image


@dataclasses.dataclass(frozen=True)
class EvalView:
    """The resized centre of an image, one view without chance."""

    image_size: int
    channels: int

    @classmethod
    def from_config(cls, data: ConfigDict) -> "EvalView":
        """From the `data` section."""
        return cls(data.image_size, data.channels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(views, T, H, W, C)."""
        return 1, 1, self.image_size, self.image_size, self.channels

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The view of `image`, uint8 [H, W, C]."""
        return transforms.resize_center_crop(image, self.image_size).reshape(self.shape)
