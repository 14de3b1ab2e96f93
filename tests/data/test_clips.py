"""Crops of clips, against their definitions and against PyTorch's interpolation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from amd_jax.data import clips


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("size", "channels"), [((30, 50), 3), ((224, 398), 1), ((7, 9), 3), ((224, 224), 3)])
def test_resizing_for_fine_tuning_is_pytorchs_interpolation_rounded_down(
    size: tuple[int, int], channels: int
):
    torch = pytest.importorskip("torch")
    frames = noise(2, 61, 83, channels)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
    ours = clips._each(frames, *size, antialias=False)
    difference = ours - expected.permute(0, 2, 3, 1).numpy()
    assert difference.max() < 0.01  # Pillow rounds down
    assert difference.min() > -1.01


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(2, 61, 83, 3), (1, 61, 83, 1), (4, 61, 83, 1), (7, 61, 83, 1)])
def test_frames_are_resized_as_pillow_does_one_by_one(shape: tuple[int, ...], antialias: bool):
    """Grey ones too, of which several are resized at once."""
    frames = noise(*shape)
    scales = (83 / 50, 0, 0, 0, 61 / 30, 0)

    def resized(frame: np.ndarray) -> np.ndarray:
        image = Image.fromarray(frame.squeeze())
        if antialias:
            return np.asarray(image.resize((50, 30), Image.Resampling.BILINEAR))
        return np.asarray(
            image.transform((50, 30), Image.Transform.AFFINE, scales, Image.Resampling.BILINEAR)
        )

    expected = np.reshape([resized(frame) for frame in frames], (len(frames), 30, 50, shape[3]))
    assert np.array_equal(clips._each(frames, 30, 50, antialias=antialias), expected)


def test_a_clip_of_the_wanted_size_stays_as_it_is():
    frames = noise(2, 8, 8, 3)
    assert clips._each(frames, 8, 8, antialias=False) is frames


def positions(height: int, width: int) -> np.ndarray:
    """A clip whose two channels are row and column: a crop tells where it was cut."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows], axis=-1).astype(np.uint8)[None]


def test_multi_scale_crops_have_the_released_shapes_and_places(monkeypatch: pytest.MonkeyPatch):
    """Of 100 × 120 at 80 pixels: sides 100, 87, 75, 66, neighbours at most; 13 places."""
    monkeypatch.setattr(clips, "_each", lambda frames, height, width, antialias: frames)
    seen = set()
    for seed in range(2000):
        cut = clips.multi_scale_crop(positions(100, 120), 80, np.random.default_rng(seed))[0]
        seen.add((cut.shape[0], cut.shape[1], int(cut[0, 0, 0]), int(cut[0, 0, 1])))
    sides = [100, 87, 75, 66]
    shapes = {(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1}
    assert {(h, w) for h, w, _, _ in seen} == shapes
    places = {(down, across) for across, down in clips.PLACES}
    assert len(places) == 13
    for h, w in shapes:
        room = ((100 - h) // 4, (120 - w) // 4)
        expected = {(down * room[0], across * room[1]) for down, across in places}
        assert {(top, left) for a, b, top, left in seen if (a, b) == (h, w)} <= expected


def test_a_side_near_the_wanted_size_is_not_resized(monkeypatch: pytest.MonkeyPatch):
    """226 pixels differ from 224 by less than three; 227 do not."""
    monkeypatch.setattr(clips, "_each", lambda frames, height, width, antialias: frames)

    def sides(short: int) -> set[int]:
        frames = np.zeros((1, short, 300, 1), np.uint8)
        cuts = (clips.multi_scale_crop(frames, 224, np.random.default_rng(seed)) for seed in range(200))
        return {side for cut in cuts for side in cut.shape[1:3]}

    assert max(sides(226)) == 224
    assert max(sides(227)) == 227


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31))
def test_any_size_can_be_cropped(height: int, width: int, seed: int):
    frames = np.zeros((2, height, width, 1), np.uint8)
    rng = np.random.default_rng(seed)
    assert clips.multi_scale_crop(frames, 16, rng).shape == (2, 16, 16, 1)
    assert clips.random_resized_crop(frames, 16, (0.08, 1), (3 / 4, 4 / 3), rng).shape == (2, 16, 16, 1)
    assert clips.crops_along(frames, 16, 3).shape == (3, 2, 16, 16, 1)


def test_crops_along_the_longer_side_start_where_the_released_test_starts_them():
    """224 × 320 after resizing: crops at int(i · (320 − 224) / 2) = 0, 48, 96; one at the centre."""
    wide = np.arange(320, dtype=np.int64)[None, None, :, None] * np.ones((1, 224, 1, 1), np.int64)
    frames = (wide % 256).astype(np.uint8)
    three = clips.crops_along(frames, 224, 3)
    assert three[:, 0, 0, 0, 0].tolist() == [0, 48, 96]
    assert clips.crops_along(frames, 224, 1)[0, 0, 0, 0, 0] == 48
    tall = frames.swapaxes(1, 2)
    assert clips.crops_along(tall, 224, 3)[:, 0, 0, 0, 0].tolist() == [0, 48, 96]
