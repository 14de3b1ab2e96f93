"""Crops and resizes of clips [T, H, W, C], uint8: all frames alike, as the released video recipes have it.

Pre-training resizes with Pillow's bilinear filter, which averages where it shrinks (`GroupMultiScaleCrop`).
Fine-tuning and tests interpolate between the four nearest pixels whatever the scale, as
torch.nn.functional.interpolate (align_corners=False) and OpenCV's INTER_LINEAR do in AMD's
dataset/video_transforms.py; but rounded down to whole values, where theirs has fractions in fine-tuning and
the nearest in tests.
"""

import numpy as np
from PIL import Image

from amd_jax.config import height_width
from amd_jax.data import transforms

SCALES = (1, 0.875, 0.75, 0.66)  # of the short side
NEAR = 3  # a crop that differs from the wanted size by less than so many pixels takes the wanted size
# Bands that are not colours are CMYK: Pillow would weigh the colours of RGBA by their alpha.
_MODES = {3: "RGB", 4: "CMYK"}
# Where a crop may lie, in quarters of the room to the right and below: corners and centre, the middles of the
# edges, the points between corners and centre.
PLACES = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)


def multi_scale_crop(frames: np.ndarray, size: transforms.Size, rng: np.random.Generator) -> np.ndarray:
    """A crop of one of few shapes and places, resized to `size` (AMD, `GroupMultiScaleCrop`).

    Width and height are each a scale times those of the largest crop of the shape of `size`, which of a
    square is the short side, from scales that are neighbours at most.
    """
    height, width = frames.shape[1:3]
    rows, columns = height_width(size)

    def sides(largest: float, wanted: int) -> list[int]:
        scaled = [int(largest * scale) for scale in SCALES]
        return [wanted if abs(side - wanted) < NEAR else side for side in scaled]

    heights = sides(min(height, width * rows / columns), rows)
    widths = sides(min(width, height * columns / rows), columns)
    pairs = [(w, h) for i, h in enumerate(heights) for j, w in enumerate(widths) if abs(i - j) <= 1]
    w, h = pairs[rng.integers(len(pairs))]
    w, h = min(w, width), min(h, height)  # a size near a short side may be larger than it
    across, down = PLACES[rng.integers(len(PLACES))]
    left, top = across * ((width - w) // 4), down * ((height - h) // 4)
    return _each(frames[:, top : top + h, left : left + w], rows, columns, antialias=True)


def random_resized_crop(
    frames: np.ndarray,
    size: transforms.Size,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """A random part of all frames, resized to `size`; see `transforms.random_resized_crop`."""
    ratio = transforms.ratio_for(ratio, size)
    top, left, height, width = transforms.crop_box(frames.shape[1], frames.shape[2], scale, ratio, rng)
    return _each(frames[:, top : top + height, left : left + width], *height_width(size), antialias=False)


def crops_along(frames: np.ndarray, size: transforms.Size, crops: int) -> np.ndarray:
    """Crops of `size`, evenly spaced where there is room once frames are scaled to cover it; one: the centre.

    Of a square that is along the longer side, after the shorter one became `size`. Returns [crops, T, …].
    """
    rows, columns = height_width(size)
    height, width = transforms.covering(frames.shape[1:3], size)
    frames = _each(frames, height, width, antialias=False)
    room = max(height - rows, width - columns)
    starts = [int(crop * (room / (crops - 1))) for crop in range(crops)] if crops > 1 else [round(room / 2)]
    down = height > rows
    cut = [frames[:, s : s + rows] if down else frames[:, :, s : s + columns] for s in starts]
    return np.stack(cut)


def _each(frames: np.ndarray, height: int, width: int, *, antialias: bool) -> np.ndarray:
    """Every frame resized bilinearly to [T, height, width, C]."""
    if frames.shape[1:3] == (height, width):
        return frames
    if frames.shape[3] == 1:
        packed = _each(_in_fours(frames), height, width, antialias=antialias)
        return np.moveaxis(packed, 3, 1).reshape(-1, height, width, 1)[: len(frames)]
    matrix = (frames.shape[2] / width, 0, 0, 0, frames.shape[1] / height, 0)
    out = np.empty((len(frames), height, width, frames.shape[3]), np.uint8)
    for at, frame in enumerate(frames):
        image = Image.fromarray(frame, _MODES[frames.shape[3]])
        if antialias:
            resized = image.resize((width, height), Image.Resampling.BILINEAR)
        else:
            size, method = (width, height), Image.Transform.AFFINE
            resized = image.transform(size, method, matrix, Image.Resampling.BILINEAR)
        out[at] = np.asarray(resized)
    return out


def _in_fours(frames: np.ndarray) -> np.ndarray:
    """Grey frames [T, H, W, 1] as the bands of a quarter as many, [ceil(T / 4), H, W, 4]; zeros fill it up.

    Pillow resizes all bands alike, and one image of four takes half as long as four of one.
    """
    packed = np.zeros((-(-len(frames) // 4), *frames.shape[1:3], 4), np.uint8)
    for at, frame in enumerate(frames):
        packed[at // 4, :, :, at % 4] = frame[:, :, 0]
    return packed
