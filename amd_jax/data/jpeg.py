"""JPEG files by libjpeg-turbo itself: Pillow's pixels in less time, or fewer of them."""

from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image

LeastScale = Callable[[int, int], float]  # of height and width: the part of them that is still enough

_START = b"\xff\xd8"
_FRACTIONS = (8, 4, 2)  # libjpeg-turbo takes longer for 7/8 to 5/8 than for the whole


def decode(data: bytes, least: LeastScale | None = None) -> np.ndarray | None:
    """uint8 [H, W, 3], the same as Pillow's; None for what Pillow has to look at itself.

    That is what is no JPEG, is too large, damaged in any way, or of other colours than grey or YCbCr.

    Args:
      data: a file.
      least: a half, a quarter or an eighth of height and width is decoded if that is no less than it says.
    """
    if not data.startswith(_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or height * width):
            return None
        fraction = _fraction(least(height, width)) if least else 1
        if fraction == 1:
            return simplejpeg.decode_jpeg(data, "RGB")
        return simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=-(-height // fraction),
            min_width=-(-width // fraction),
            min_factor=fraction,
        )
    except ValueError:
        return None


def _fraction(least: float) -> int:
    return next((n for n in _FRACTIONS if 1 / n >= least), 1)
