"""Transforms against their definitions: Pillow's own operations and torchvision's crop rules."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from amd_jax.data import transforms

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def gradient(height: int, width: int, channels: int = 3) -> np.ndarray:
    y, x, c = np.mgrid[:height, :width, :channels]
    return ((7 * y + 3 * x + 50 * c + (x * y) // 9) % 256).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_decode_png_is_exact():
    pixels = gradient(13, 17)
    assert np.array_equal(transforms.decode(encoded(Image.fromarray(pixels), "PNG"), 3), pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("L", "PNG"),
        ("L", "JPEG"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("I;16", "PNG"),
    ],
)
def test_decode_converts_like_pillow(mode: str, form: str, channels: int):
    if mode == "I;16":
        image = Image.fromarray(gradient(9, 11, 1)[:, :, 0].astype(np.uint16) * 200)
    else:
        image = Image.fromarray(gradient(9, 11)).convert(mode)
    data = encoded(image, form)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(opened.convert("RGB" if channels == 3 else "L"))
    decoded = transforms.decode(data, channels)
    assert decoded.shape == (9, 11, channels)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, expected.reshape(9, 11, channels))


def test_decode_ignores_exif_orientation():
    image = Image.fromarray(gradient(8, 12))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to display
    assert transforms.decode(encoded(image, "JPEG", exif=exif), 3).shape == (8, 12, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6])
def test_decode_refuses_truncated_files(form: str, kept: float):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)), form)
    with pytest.raises(transforms.UnreadableImage):
        transforms.decode(data[: int(kept * len(data))], 3)


def test_decode_refuses_other_bytes():
    with pytest.raises(transforms.UnreadableImage):
        transforms.decode(b"<html>404</html>", 3)


def test_decode_takes_arrays():
    grey = gradient(5, 6, 1)
    assert np.array_equal(transforms.decode(grey[:, :, 0], 1), grey)
    assert np.array_equal(transforms.decode(grey[:, :, 0], 3), grey.repeat(3, axis=2))
    color = gradient(5, 6, 3)
    assert np.array_equal(transforms.decode(color, 3), color)
    assert np.array_equal(
        transforms.decode(color, 1)[:, :, 0], np.asarray(Image.fromarray(color).convert("L"))
    )


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=200)
def test_crop_stays_inside_and_in_bounds(height: int, width: int, seed: int):
    rng = np.random.default_rng(seed)
    top, left, h, w = transforms.crop_box(height, width, SCALE, RATIO, rng)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h > 0
    assert w > 0
    # Rounding each side moves it by half a pixel at most.
    assert (w + 0.5) / max(h - 0.5, 0.5) >= RATIO[0]
    assert (w - 0.5) / (h + 0.5) <= RATIO[1]
    if RATIO[0] <= width / height <= RATIO[1]:  # elsewhere the fallback may be smaller than the scale says
        assert (h + 0.5) * (w + 0.5) >= SCALE[0] * height * width


class Fixed:
    """Stands in for a generator: hands out the numbers it was given."""

    def __init__(self, uniforms: list[float], fractions: list[float]) -> None:
        self.uniforms, self.fractions = iter(uniforms), iter(fractions)

    def random(self) -> float:
        return next(self.uniforms)

    def integers(self, high: int) -> int:
        return int(next(self.fractions) * high)


def test_crop_follows_torchvision_get_params():
    # area 0.6 of 300 × 400 and ratio exp(0) = 1: a square of round(sqrt(72000)) = 268.
    rng = Fixed([0.5, 0.5], [0.5, 0.25])
    assert transforms.crop_box(300, 400, (0.2, 1.0), RATIO, rng) == (16, 33, 268, 268)
    # The largest ratio, twice too wide for the image, is drawn again.
    rng = Fixed([1.0, 1.0, 0.0, 0.0], [0.0, 0.0])
    side = math.sqrt(0.2 * 300 * 300)
    expected = (0, 0, round(side / math.sqrt(3 / 4)), round(side * math.sqrt(3 / 4)))
    assert transforms.crop_box(300, 300, (0.2, 1.0), RATIO, rng) == expected


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(100, 10, (43, 0, 13, 10)), (10, 100, (0, 43, 10, 13)), (30, 30, (0, 0, 30, 30))],
)
def test_crop_falls_back_to_the_centre(height: int, width: int, box: tuple[int, ...]):
    never_fits = Fixed([1.0] * 20, [])
    assert transforms.crop_box(height, width, (4.0, 4.0), RATIO, never_fits) == box


def test_random_resized_crop_is_crop_then_pillow_resize():
    image = gradient(120, 90)
    cropped = transforms.random_resized_crop(image, 32, SCALE, RATIO, np.random.default_rng(3))
    top, left, h, w = transforms.crop_box(120, 90, SCALE, RATIO, np.random.default_rng(3))
    expected = (
        Image.fromarray(image).crop((left, top, left + w, top + h)).resize((32, 32), Image.Resampling.BICUBIC)
    )
    assert np.array_equal(cropped, np.asarray(expected))


def test_resize_antialiases():
    stripes = np.zeros((8, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    small = transforms.resize(stripes, 4, 8)
    assert small.shape == (4, 8, 1)
    assert abs(int(small[2, 4, 0]) - 128) < 8  # without antialiasing the stripes would alias to 0 or 255


def test_flip_mirrors_half_of_the_time():
    image = gradient(4, 6)
    flipped = [
        np.array_equal(transforms.random_flip(image, np.random.default_rng(seed)), image[:, ::-1])
        for seed in range(400)
    ]
    assert 150 < sum(flipped) < 250


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (256, 256), (100, 61)])
def test_eval_crop_is_torchvisions(height: int, width: int):
    image = gradient(height, width)
    short = min(height, width)
    resized = int(256 * height / short), int(256 * width / short)
    whole = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BICUBIC)
    top, left = round((resized[0] - 224) / 2), round((resized[1] - 224) / 2)
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    assert np.array_equal(transforms.resize_center_crop(image, 224), expected)


@pytest.mark.parametrize(("size", "short"), [(384, 384), (225, 225), (160, 182), (64, 73), (48, 48)])
def test_eval_margin_is_that_of_maes_recipe(size: int, short: int):
    image = gradient(400, 500)
    whole = Image.fromarray(image).resize((int(short * 500 / 400), short), Image.Resampling.BICUBIC)
    top, left = round((short - size) / 2), round((whole.width - size) / 2)
    expected = np.asarray(whole)[top : top + size, left : left + size]
    assert np.array_equal(transforms.resize_center_crop(image, size), expected)


def test_eval_share_gives_the_short_side_of_maes_recipe_at_every_size():
    for size in range(64, 225):
        assert int(size / transforms.crop_share(size)) == int(size * 256 / 224)


def test_eval_leaves_small_images_as_they_are():
    image = gradient(28, 28, 1)
    assert np.array_equal(transforms.resize_center_crop(image, 28), image)
    assert transforms.resize_center_crop(gradient(40, 60), 32).shape == (32, 32, 3)
