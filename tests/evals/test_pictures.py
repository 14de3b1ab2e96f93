"""Pictures show what each network saw, and never a hidden pixel."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from amd_jax.evals import pictures
from amd_jax.evals.evaluation import Picture
from amd_jax.models import patches
from amd_jax.models.masking import levels_from_masks
from amd_jax.sharding import make_mesh, replicated
from amd_jax.steps.pretrain import Pretraining
from configs import vitb_in1k


@functools.cache
def case() -> tuple[Pretraining, Any, np.ndarray]:
    """The smoke config's networks, student parameters, and three images."""
    config = vitb_in1k.get_config("smoke")
    config.align.student_layers, config.align.teacher_layers = (2,), (2,)
    run = Pretraining.from_config(config)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(run.init, jax.random.key(0))
    params = jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)
    return run, params, rng.integers(0, 256, (3, *run.input_shape), dtype=np.uint8)


@functools.cache
def columns() -> tuple[np.ndarray, np.ndarray]:
    """Patches of every column `[column, n, tokens, values]`, and the levels `[n, tokens]`."""
    run, params, pixels = case()
    key = jax.random.key(9)
    drawn = jax.jit(lambda p, x: pictures.reconstruction(run, p, x, key))(params, pixels)
    assert drawn.shape == (3, 4, 1, 32, 32, 3)
    cut = [patches.patchify(drawn[:, i], run.patch) for i in range(4)]
    return np.stack(cut), np.asarray(levels_from_masks(run.masks(key, 3)))


def test_every_column_keeps_exactly_the_pixels_its_network_saw_and_hides_the_others() -> None:
    _, _, pixels = case()
    (original, teacher, student, result), levels = columns()
    np.testing.assert_allclose(original, patches.patchify(pixels, (1, 8, 8)) / 255, rtol=1e-6)
    np.testing.assert_array_equal(teacher[levels < 2], original[levels < 2])
    assert (teacher[levels == 2] == pictures.HIDDEN).all()
    np.testing.assert_array_equal(student[levels < 1], original[levels < 1])
    assert (student[levels > 0] == pictures.HIDDEN).all()
    np.testing.assert_array_equal(result[levels < 1], original[levels < 1])


def test_hidden_patches_are_predictions_and_not_the_original() -> None:
    (original, _, _, result), levels = columns()
    hidden = levels > 0
    assert (abs(result[hidden] - original[hidden]).mean(axis=-1) > 0.02).all()
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_perfect_prediction_restores_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prediction, denormalisation and scatter end at the right places."""
    run, params, pixels = case()
    plain = Pretraining.student_output

    def oracle(self: Pretraining, params: Any, pixels: Any, masks: Any, predict_all: bool = False) -> Any:
        out = jax.eval_shape(lambda: plain(self, params, pixels, masks, predict_all))
        return out.replace(pixels=self.targets(pixels, masks.hidden))

    monkeypatch.setattr(Pretraining, "student_output", oracle)
    drawn = pictures.reconstruction(run, params, jnp.asarray(pixels), jax.random.key(9))
    np.testing.assert_allclose(drawn[:, 3], pixels / 255, atol=1e-5)


def test_without_a_teacher_its_column_is_left_out() -> None:
    config = vitb_in1k.get_config("smoke")
    config.method = "mae"
    run = Pretraining.from_config(config)
    params = jax.eval_shape(run.init, jax.random.key(0))
    key = jax.random.key(0)
    pixels = jax.ShapeDtypeStruct((3, *run.input_shape), np.uint8)
    drawn = jax.eval_shape(lambda p, x: pictures.reconstruction(run, p, x, key), params, pixels)
    assert drawn.shape == (3, 3, 1, 32, 32, 3)


def test_the_painter_draws_the_same_masks_every_time() -> None:
    run, params, pixels = case()
    paint = pictures.make_painter(run, pixels, 9, replicated(make_mesh(devices=jax.devices()[:1])))
    first, frames = paint(params)
    assert frames is None
    assert (first.shape, first.dtype) == ((3 * 68, 4 * 68, 3), np.uint8)
    other = jax.tree.map(lambda p: 1.5 * p, params)
    changed = paint(other).still
    left = slice(0, 3 * 68)  # original and the two masked columns
    np.testing.assert_array_equal(changed[:, left], first[:, left])
    assert (changed != first).any()
    (_, _, _, result), _ = columns()
    expected = pictures.sheet(np.asarray(patches.unpatchify(result, run.patch, (1, 4, 4)))[:, :1])
    np.testing.assert_allclose(first[:, 3 * 68 :].astype(int), expected, atol=1)


@pytest.mark.parametrize(
    ("height", "width", "smallest", "scale"),
    [(32, 32, 64, 2), (28, 28, 64, 3), (64, 64, 64, 1), (4, 6, 8, 2)],
)
def test_a_sheet_has_rows_and_columns_with_gaps_and_enlarges_small_images(
    height, width, smallest, scale
) -> None:
    picture = np.zeros((2, 3, height, width, 3))
    sheet = pictures.sheet(picture, gap=2, smallest=smallest)
    assert sheet.shape == (2 * (scale * height + 4), 3 * (scale * width + 4), 3)
    assert sheet.dtype == np.uint8


def test_a_sheets_cells_are_in_reading_order_unsmoothed_and_clipped() -> None:
    cells = np.array([[0.0, 0.2], [0.4, 2.0]])[..., None, None, None] * np.ones((2, 2, 2, 2, 1))
    sheet = pictures.sheet(cells, gap=1, smallest=4)
    assert sheet.shape == (12, 12, 1)
    inside = sheet.reshape(2, 6, 2, 6)[:, 1:-1, :, 1:-1]
    np.testing.assert_array_equal(inside.min((1, 3)), [[0, 51], [102, 255]])
    np.testing.assert_array_equal(inside.max((1, 3)), [[0, 51], [102, 255]])
    assert (sheet[0] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_read_back_pixel_by_pixel(channels: int, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "picture"
    pictures.save(path, Picture(picture))
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
    with Image.open(path.with_suffix(".png")) as image:
        assert (image.format, image.mode) == ("PNG", "RGB" if channels == 3 else "L")
        np.testing.assert_array_equal(np.asarray(image).reshape(picture.shape), picture)


@functools.cache
def clip_columns() -> np.ndarray:
    """Of two clips of four frames, in tubelets of two: `[n, columns, frames, h, w, channels]`."""
    return np.linspace(0, 1, 2 * 4 * 4).reshape(2, 4, 4, 1, 1, 1) * np.ones((8, 8, 3))


def test_a_strip_has_a_frame_of_each_tubelet_beside_the_other_and_columns_below_each_other() -> None:
    picture = pictures.strip(clip_columns(), tubelet=2)
    cells = clip_columns()[:, :, ::2].reshape(8, 2, 8, 8, 3)
    np.testing.assert_array_equal(picture, pictures.sheet(cells))


def test_a_clip_is_drawn_as_a_strip_and_as_an_animation(tmp_path: Path) -> None:
    config = vitb_in1k.get_config("smoke")
    config.data.frames, config.model.tubelet, config.method = 4, 2, "mae"
    run = Pretraining.from_config(config)
    params = run.init(jax.random.key(0))
    pixels = np.random.default_rng(0).integers(0, 256, (3, *run.input_shape), dtype=np.uint8)
    paint = pictures.make_painter(run, pixels, 9, replicated(make_mesh(devices=jax.devices()[:1])))
    picture = paint(params)
    assert picture.still.shape == (pictures.STRIPS * 3 * 68, 2 * 68, 3)
    assert picture.frames is not None
    assert picture.frames.shape == (4, 3 * 68, 3 * 68, 3)
    pictures.save(tmp_path / "step", picture)
    with Image.open(tmp_path / "step.webp") as animation:
        assert animation.n_frames == 4
        assert animation.info["loop"] == 0
        assert animation.size == (3 * 68, 3 * 68)
