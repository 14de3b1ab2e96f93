"""RandAugment and random erasing, the augmentations of fine-tuning: NumPy and Pillow, uint8 in and out.

The definitions are those of timm (huggingface/pytorch-image-models, timm/data/auto_augment.py and
random_erasing.py), which MAE and DMAE call, and of the version for videos in VideoMAE and AMD
(rand_augment.py, random_erasing.py), which does the same to all frames of a clip. What is drawn has the same
distribution as theirs; the random numbers are others.

The recipes use these in different orders. Images (timm/data/transforms_factory.py,
`transforms_imagenet_train`): crop, flip, RandAugment, erasing. Videos (MCG-NJU/AMD, dataset/datasets.py,
`_aug_frame`): RandAugment on whole frames, crop, flip (not for SSv2), erasing.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from amd_jax.data.policy import FULL_LEVEL, GREY, Policy

_RESAMPLE = Image.Resampling.BICUBIC  # that of all recipes: timm's own default draws bilinear or bicubic

# Bounds of random erasing's box: its share of the area, and the logarithm of its height over its width.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation with everything random about it decided."""

    name: str
    argument: float  # degrees, share of the size, slope, factor, bits or threshold; 0 where there is none


def draw(policy: Policy, rng: np.random.Generator) -> list[Operation]:
    """The operations to apply to one image or clip, in order (timm, `RandAugment` and `AugmentOp`).

    `policy.layers` names are drawn uniformly and with replacement; each is then kept with
    `policy.probability` and gets a magnitude and, where the operation has two directions, a sign of its own.
    """
    arguments = _INCREASING if policy.increasing else _PLAIN
    names = list(arguments)
    operations = []
    for name in (names[i] for i in rng.integers(len(names), size=policy.layers)):
        if rng.random() >= policy.probability:
            continue
        level = policy.magnitude
        if math.isinf(policy.magnitude_std):
            level = rng.uniform(0, level)
        elif policy.magnitude_std > 0:
            level = rng.normal(level, policy.magnitude_std)
        level = max(0.0, min(level, policy.magnitude_max))
        sign = -1 if rng.random() < 0.5 else 1
        operations.append(Operation(name, arguments[name](level / FULL_LEVEL, sign)))
    return operations


def apply(image: np.ndarray, operations: Sequence[Operation], fill: tuple[int, ...] = GREY) -> np.ndarray:
    """`image` [H, W, C], or each of the frames [T, H, W, C], after all `operations`; C is 1 or 3."""
    if not operations:
        return image
    if image.ndim == 4:
        return np.stack([apply(frame, operations, fill) for frame in image])
    grey = image.shape[2] == 1
    pil = Image.fromarray(image[:, :, 0] if grey else image)
    for operation in operations:
        pil = _APPLY[operation.name](pil, operation, fill[:1] if grey else fill)
    return np.asarray(pil).reshape(image.shape)


def rand_augment(image: np.ndarray, policy: Policy, rng: np.random.Generator) -> np.ndarray:
    """RandAugment (arXiv 1909.13719) in timm's definition.

    Args:
      image: uint8 [H, W, C], or the frames [T, H, W, C] of a clip, which all get the same operations with
        the same magnitudes (what an operation measures on the image, such as a histogram, it measures on
        each frame). C is 1 or 3.
      policy: what to draw from.
      rng: the generator of this image.

    Returns:
      uint8 of the same shape; `image` itself if no operation is to be applied.
    """
    return apply(image, draw(policy, rng), policy.fill)


def random_erasing(
    image: np.ndarray,
    probability: float,
    rng: np.random.Generator,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """Noise in a random box, as timm's RandomErasing in mode 'pixel' with one box (arXiv 1708.04896).

    The box has a share of the area drawn uniformly from 0.02 to 1/3 and height / width drawn log-uniformly
    from 0.3 to 1/0.3, both again if it does not fit. In a clip the box is the same in all frames and the
    noise is not (MCG-NJU/AMD, dataset/random_erasing.py, `_erase_cube`).

    timm writes N(0, 1) noise into normalised pixels. Here it is written into bytes such that the device's
    normalisation gives N(0, 1) back, up to rounding (at most 0.5 / 255 / std, 0.009 for ImageNet) and up to
    the one real difference: noise beyond black and white is clipped. With ImageNet's mean and std that is
    2.9, 2.8 and 4.0 % of the values of the three channels; with mean and std 0.5 it is 32 %.

    Args:
      image: uint8 [H, W, C] or [T, H, W, C].
      probability: that there is a box at all.
      rng: the generator of this image.
      mean: of each channel in [0, 1], as in the normalisation that will follow.
      std: likewise.

    Returns:
      A changed copy, or `image` itself.
    """
    if rng.random() >= probability:
        return image
    height, width, channels = image.shape[-3:]
    for _ in range(10 if image.ndim == 3 else 100):  # attempts of timm and of `_erase_cube`
        size = rng.uniform(*_ERASED_AREA) * height * width
        ratio = math.exp(rng.uniform(*_ERASED_LOG_ASPECT))
        h, w = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = rng.standard_normal((*image.shape[:-3], h, w, channels), np.float32)
            pixels = (noise * np.asarray(std, np.float32) + np.asarray(mean, np.float32)) * 255
            image = image.copy()
            image[..., top : top + h, left : left + w, :] = np.clip(np.rint(pixels), 0, 255)
            break
    return image


# An operation's argument from its level (magnitude / 10, so 1 is the end of the range) and a sign, 1 or -1;
# timm's `*_level_to_arg`.
_Argument = Callable[[float, int], float]


def _nothing(level: float, sign: int) -> float:
    return 0.0


def _up_to(limit: float) -> _Argument:
    return lambda level, sign: sign * level * limit


def _cut_to_int(scale: int) -> _Argument:
    return lambda level, sign: int(level * scale)


_SAME: dict[str, _Argument] = {
    "AutoContrast": _nothing,
    "Equalize": _nothing,
    "Invert": _nothing,
    "Rotate": _up_to(30.0),  # degrees
    "SolarizeAdd": _cut_to_int(110),  # added
    "ShearX": _up_to(0.3),  # slope
    "ShearY": _up_to(0.3),
    "TranslateXRel": _up_to(0.45),  # share of the width
    "TranslateYRel": _up_to(0.45),  # share of the height
}
_ENHANCEMENTS = ("Color", "Contrast", "Brightness", "Sharpness")

# timm's _RAND_INCREASING_TRANSFORMS; its names end in "Increasing" where the plain set has another scale.
_INCREASING: dict[str, _Argument] = {
    **_SAME,
    "Posterize": lambda level, sign: max(0, 4 - int(level * 4)),  # bits kept
    "Solarize": lambda level, sign: 256 - int(level * 256),  # threshold
    **dict.fromkeys(_ENHANCEMENTS, lambda level, sign: max(0.1, 1 + sign * level * 0.9)),  # 1 changes nothing
}

# timm's _RAND_TRANSFORMS: fewer bits and lower thresholds, so stronger changes, at low magnitudes.
_PLAIN: dict[str, _Argument] = {
    **_SAME,
    "Posterize": _cut_to_int(4),
    "Solarize": _cut_to_int(256),
    **dict.fromkeys(_ENHANCEMENTS, lambda level, sign: level * 1.8 + 0.1),
}

_Apply = Callable[[Image.Image, Operation, tuple[int, ...]], Image.Image]


def _without_argument(function: Callable[[Image.Image], Image.Image]) -> _Apply:
    return lambda image, operation, fill: function(image)


def _enhance(kind: Callable[[Image.Image], Any]) -> _Apply:
    return lambda image, operation, fill: kind(image).enhance(operation.argument)


def _rotate(image: Image.Image, operation: Operation, fill: tuple[int, ...]) -> Image.Image:
    return image.rotate(operation.argument, _RESAMPLE, fillcolor=fill)


def _affine(matrix: Callable[[float, int, int], tuple[float, ...]]) -> _Apply:
    """`matrix` of (argument, width, height) is (a, b, c, d, e, f): (x, y) comes from (ax+by+c, dx+ey+f)."""

    def transform(image: Image.Image, operation: Operation, fill: tuple[int, ...]) -> Image.Image:
        data = matrix(operation.argument, *image.size)
        method = Image.Transform.AFFINE
        return image.transform(image.size, method, data, _RESAMPLE, fillcolor=fill)

    return transform


def _table(change: Callable[[np.ndarray, int], np.ndarray]) -> _Apply:
    """Replaces each value v by change(v, argument)."""

    def look_up(image: Image.Image, operation: Operation, fill: tuple[int, ...]) -> Image.Image:
        values = change(np.arange(256), int(operation.argument))
        return image.point(values.tolist() * len(image.getbands()))

    return look_up


_APPLY: dict[str, _Apply] = {
    "AutoContrast": _without_argument(ImageOps.autocontrast),
    "Equalize": _without_argument(ImageOps.equalize),
    "Invert": _table(lambda v, _: 255 - v),
    # Not Pillow's posterize, which refuses 0 bits: magnitude 10, and the upper end of a noisy magnitude 9.
    "Posterize": _table(lambda v, bits: v >> (8 - bits) << (8 - bits)),
    "Solarize": _table(lambda v, threshold: np.where(v < threshold, v, 255 - v)),
    "SolarizeAdd": _table(lambda v, added: np.where(v < 128, np.minimum(v + added, 255), v)),
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "Rotate": _rotate,
    "ShearX": _affine(lambda slope, w, h: (1, slope, 0, 0, 1, 0)),
    "ShearY": _affine(lambda slope, w, h: (1, 0, 0, slope, 1, 0)),
    "TranslateXRel": _affine(lambda share, w, h: (1, 0, share * w, 0, 1, 0)),
    "TranslateYRel": _affine(lambda share, w, h: (1, 0, 0, 0, 1, share * h)),
}
