"""Decode, crop, resize and flip images: NumPy arrays and Pillow, uint8 in and out, no accelerator.

Resizing is Pillow's bicubic with antialiasing, which is what the PyTorch recipes of MAE, DMAE and AMD use
(torchvision on PIL images); OpenCV's and TensorFlow's default bicubic have no antialiasing and give other
pixels. Images are arrays [height, width, channels] with 1 (grey) or 3 (colour) channels.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from amd_jax.config import height_width
from amd_jax.data import jpeg

# Smaller sets (28×28, 32×32) are used as they are, without the margin that evaluation crops away.
MARGIN_FROM_SIZE = 64
MARGIN_TO_SIZE = 224  # and above this, MAE's recipe has none

Size = int | Sequence[int]  # the side of a square, or height and width

_MODES = {1: "L", 3: "RGB"}


class UnreadableImage(OSError):
    """Bytes that are not a whole image."""


def decode(image: bytes | np.ndarray, channels: int, least: jpeg.LeastScale | None = None) -> np.ndarray:
    """Pixels of an image, as torchvision's ImageFolder loads it: `convert('RGB')` (or 'L'), no rotation.

    Grey, palette, CMYK, alpha and 16-bit images are converted the way Pillow converts them, and an EXIF
    orientation is not applied.

    Args:
      image: an encoded file, or uint8 pixels [H, W] or [H, W, C] with C in 1, 3, 4.
      channels: 1 or 3.
      least: how much of its height and width is enough of a JPEG in colour; None: all of it.

    Returns:
      uint8 [H, W, channels].

    Raises:
      UnreadableImage: the bytes are not an image, or not all of one.
    """
    mode = _MODES[channels]
    if isinstance(image, np.ndarray):
        pixels = image if image.ndim == 3 else image[:, :, None]
        if pixels.shape[2] != channels:
            pixels = np.asarray(_to_pil(pixels).convert(mode)).reshape(*pixels.shape[:2], channels)
        return pixels
    if channels == 3 and (plain := jpeg.decode(image, least)) is not None:
        return plain
    try:
        with Image.open(io.BytesIO(image)) as opened:
            pixels = np.asarray(opened.convert(mode))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing of damaged bytes runs into
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """A random box (top, left, height, width), as torchvision's RandomResizedCrop.get_params draws it.

    Ten times a share of the area is drawn uniformly from `scale` and width / height log-uniformly from
    `ratio`; the first box that fits is placed uniformly. If none fits, the box is the largest centred one
    whose ratio is in bounds.
    """
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(log_low + (log_high - log_low) * rng.random())
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(
    image: np.ndarray,
    size: Size,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """A random part of `image` [H, W, C], resized to `size`; see `crop_box` and `ratio_for`."""
    ratio = ratio_for(ratio, size)
    top, left, height, width = crop_box(image.shape[0], image.shape[1], scale, ratio, rng)
    return resize(image[top : top + height, left : left + width], *height_width(size))


def ratio_for(ratio: tuple[float, float], size: Size) -> tuple[float, float]:
    """Width over height of crops that `size` squeezes as much as a square squeezes crops of `ratio`."""
    height, width = height_width(size)
    return ratio[0] * width / height, ratio[1] * width / height


def resize(image: np.ndarray, height: int, width: int, interpolation: str = "bicubic") -> np.ndarray:
    """`image` [H, W, C] resized to [height, width, C] with a filter of Pillow's, which antialias."""
    if image.shape[:2] == (height, width):
        return image
    resized = np.asarray(_to_pil(image).resize((width, height), Image.Resampling[interpolation.upper()]))
    return resized.reshape(height, width, image.shape[2])


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` [..., H, W, C], mirrored left to right with probability 0.5."""
    return image[..., ::-1, :] if rng.random() < 0.5 else image


def crop_share(size: int) -> float:
    """The share of an evaluation image's short side that is seen where so many pixels of it are.

    0.875 (224 of 256) from 64 to 224 pixels; above, as in MAE's `util/datasets.py`, and below there is no
    margin.
    """
    return 224 / 256 if MARGIN_FROM_SIZE <= size <= MARGIN_TO_SIZE else 1.0


def covering(size: Sequence[int], box: Size) -> tuple[int, int]:
    """Height and width of an image of `size`, scaled so that it just covers `box`.

    Of a square that is its short side; the other is rounded as in torchvision's Resize.
    """
    (height, width), (rows, columns) = size, height_width(box)
    if height * columns <= width * rows:
        return rows, max(columns, int(rows * width / height))
    return max(rows, int(columns * height / width)), columns


def with_margin(size: Size) -> tuple[int, int]:
    """What an evaluation image is scaled to cover, before `size` is cut out of its centre."""
    height, width = height_width(size)
    share = crop_share(min(height, width))
    return int(height / share), int(width / share)


def resize_center_crop(image: np.ndarray, size: Size) -> np.ndarray:
    """The centre of `image` [H, W, C], with the usual margin (256 to 224) around it.

    As torchvision's Resize(int(size / crop_share)) and CenterCrop(size); see `crop_share`. Where there is no
    margin a 28×28 image comes back as it is.
    """
    height, width = covering(image.shape[:2], with_margin(size))
    return center_crop(resize(image, height, width), *height_width(size))


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The centre [height, width, C] of `image`, which is at least as large; torchvision's CenterCrop."""
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def _to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
