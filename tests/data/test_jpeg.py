"""JPEG files decoded by libjpeg-turbo: Pillow's pixels to the bit, or a part of them where that is enough."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from amd_jax.data import jpeg, transforms


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth colours with an edge, uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([y * 255 / height, x * 255 / width, (x + y) * 127 / (height + width)], axis=-1)
    smooth[y > x] = 255 - smooth[y > x]
    return smooth.astype(np.uint8)


def packed(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def pillows(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_pixels_are_pillows(
    height: int, width: int, quality: int, subsampling: str, progressive: bool, mode: str
) -> None:
    image = Image.fromarray(photograph(height, width)).convert(mode)
    data = packed(image, quality=quality, subsampling=subsampling, progressive=progressive)
    decoded = jpeg.decode(data)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, pillows(data))


@pytest.mark.parametrize("mode", ["CMYK", "PNG", "cut", "trailing", "empty"])
def test_what_is_not_plain_is_pillows_to_judge(mode: str) -> None:
    image = Image.fromarray(photograph(40, 50))
    data = packed(image.convert("CMYK") if mode == "CMYK" else image)
    if mode == "PNG":
        image.save(file := io.BytesIO(), "PNG")
        data = file.getvalue()
    data = {"cut": data[: len(data) // 2], "empty": b"", "trailing": data + b"more"}.get(mode, data)
    if mode in ("cut", "empty"):
        assert jpeg.decode(data) is None
        with pytest.raises(transforms.UnreadableImage):
            transforms.decode(data, 3)
    else:
        np.testing.assert_array_equal(transforms.decode(data, 3), pillows(data))


def test_an_image_that_would_fill_the_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(Image.fromarray(photograph(40, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    assert jpeg.decode(data) is None
    with pytest.raises(transforms.UnreadableImage, match="DecompressionBomb"):
        transforms.decode(data, 3)


@pytest.mark.parametrize(
    ("least", "size"),
    [
        (1.2, (77, 101)),
        (0.51, (77, 101)),
        (0.5, (39, 51)),
        (0.3, (39, 51)),
        (0.25, (20, 26)),
        (0.01, (10, 13)),
    ],
)
def test_a_part_of_the_size_is_enough_where_it_is_said_to_be(least: float, size: tuple[int, int]) -> None:
    whole = photograph(77, 101)
    decoded = jpeg.decode(packed(Image.fromarray(whole), quality=95), lambda height, width: least)
    assert decoded is not None
    assert decoded.shape == (*size, 3)
    exact = transforms.resize(whole, *size)
    assert abs(decoded.astype(float) - exact).mean() < 4
