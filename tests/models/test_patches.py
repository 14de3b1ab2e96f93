"""The patch layout against its definition by loops."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from amd_jax.models import patches

sizes = st.tuples(*[st.integers(1, 3)] * 3)


def cut(pixels: np.ndarray, patch: tuple[int, int, int]) -> np.ndarray:
    """Tokens in the order (t h w), values of a token in the order (t h w channel), by loops."""
    out = []
    for video in pixels:
        tokens = []
        for t in range(0, video.shape[0], patch[0]):
            for y in range(0, video.shape[1], patch[1]):
                for x in range(0, video.shape[2], patch[2]):
                    values = []
                    for dt in range(patch[0]):
                        for dy in range(patch[1]):
                            for dx in range(patch[2]):
                                values.extend(video[t + dt, y + dy, x + dx])
                    tokens.append(values)
        out.append(tokens)
    return np.array(out)


@given(sizes, sizes, st.integers(1, 3), st.integers(1, 2))
def test_patchify_is_the_loop_definition_and_unpatchify_its_inverse(grid, patch, channels, batch) -> None:
    frames, height, width = (g * p for g, p in zip(grid, patch, strict=True))
    shape = (batch, frames, height, width, channels)
    pixels = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    tokens = patches.patchify(pixels, patch)
    np.testing.assert_array_equal(tokens, cut(pixels, patch))
    np.testing.assert_array_equal(patches.unpatchify(tokens, patch, grid), pixels)


def test_gather_picks_each_samples_own_tokens_in_the_given_order() -> None:
    tokens = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    picked = patches.gather_tokens(tokens, np.array([[4, 0], [1, 3]]))
    expected = np.stack([tokens[0, [4, 0]], tokens[1, [1, 3]]])
    np.testing.assert_array_equal(picked, expected)


def test_normalising_patches_is_normalising_the_image_first() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 3), dtype=np.uint8)
    image = ((pixels / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    normalized = patches.normalize(patches.patchify(pixels, (2, 4, 4)), mean, std)
    np.testing.assert_allclose(normalized, cut(image, (2, 4, 4)), rtol=1e-5, atol=1e-6)


def test_bytes_are_scaled_to_one_and_floats_are_left_alone() -> None:
    np.testing.assert_allclose(patches.to_unit(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], rtol=1e-6)
    x = np.array([0, 0.25, 1], np.float32)
    np.testing.assert_array_equal(patches.to_unit(x), x)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(28, 35), (48, 37)])
def test_resizing_on_the_device_is_pillows_but_for_its_rounding(method: str, size: tuple[int, int]) -> None:
    """Pillow rounds (and cuts off) at 8 bits after each of its two passes; these pixels stay inside."""
    pixels = np.random.default_rng(0).integers(80, 176, (1, 2, 32, 40, 3), np.uint8)
    ours = np.asarray(patches.resized(jnp.asarray(pixels), size, method))
    how = Image.Resampling[method.upper()]
    for frame, mine in zip(pixels[0], ours[0], strict=True):
        theirs = np.asarray(Image.fromarray(frame).resize(size[::-1], how))
        np.testing.assert_allclose(255 * mine, theirs, atol=1.5)
