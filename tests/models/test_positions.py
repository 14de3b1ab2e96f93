"""Position tables against the papers' definitions, a number at a time."""

import math

import numpy as np
import pytest

from amd_jax.models import positions


def wave(feature: int, angle: float) -> float:
    return math.cos(angle) if feature else math.sin(angle)


@pytest.mark.parametrize(("count", "width"), [(5, 8), (3, 6)])
def test_the_1d_table_alternates_sine_and_cosine_of_the_token_index(count: int, width: int) -> None:
    """Attention Is All You Need, section 3.5: features 2i and 2i + 1 share the wavelength 10000^(2i/d)."""
    expected = [
        [wave(f % 2, token / 10000 ** (2 * (f // 2) / width)) for f in range(width)] for token in range(count)
    ]
    np.testing.assert_allclose(positions.sincos_1d(count, width), expected, atol=1e-6)


def test_the_2d_table_is_width_first_and_sines_before_cosines() -> None:
    """MAE: features are [sin(x w), cos(x w), sin(y w), cos(y w)], a quarter of the width each."""
    height, width, features = 2, 3, 12
    quarter = features // 4
    expected = [
        [
            wave(part % 2, (x if part < 2 else y) / 10000 ** (i / quarter))
            for part in range(4)
            for i in range(quarter)
        ]
        for y in range(height)
        for x in range(width)
    ]
    np.testing.assert_allclose(positions.sincos_2d((height, width), features), expected, atol=1e-6)


def test_the_first_half_of_the_2d_table_tells_columns_apart_and_the_second_rows() -> None:
    table = positions.sincos_2d((3, 4), 16).reshape(3, 4, 16)
    assert (table[:1, :, :8] == table[1:, :, :8]).all()
    assert (table[:, :1, 8:] == table[:, 1:, 8:]).all()
    assert len(np.unique(table.reshape(12, 16), axis=0)) == 12


def test_a_video_has_one_1d_table_over_all_tokens_or_its_2d_table_in_every_frame() -> None:
    grid = (2, 2, 3)
    np.testing.assert_array_equal(positions.table("sincos_1d", grid, 8), positions.sincos_1d(12, 8))
    flat = positions.sincos_2d((2, 3), 8)
    np.testing.assert_array_equal(positions.table("sincos_2d", grid, 8), np.concatenate([flat, flat]))


def test_tables_are_float32_and_an_unknown_one_is_an_error() -> None:
    for kind in ("sincos_1d", "sincos_2d"):
        assert positions.table(kind, (1, 2, 2), 8).dtype == np.float32
    with pytest.raises(ValueError, match="'rotary'"):
        positions.table("rotary", (1, 2, 2), 8)
