"""What is done to one example: the training views and the evaluation view, against their definitions."""

import numpy as np
import pytest

from amd_jax.data import clips, transforms
from amd_jax.data.policy import mean_fill, parse
from amd_jax.data.randaugment import rand_augment, random_erasing
from amd_jax.data.views import EvalViews, TrainViews
from amd_jax.errors import ConfigError
from tests.data.conftest import Numbers, make_config

IMAGE = Numbers(1)[0].content


def test_training_views_are_cropped_flipped_augmented_and_erased_in_this_order():
    config = make_config(**{"data.repeats": 3, "data.randaugment": "rand-m9-p1", "data.erasing": 1.0})
    data = config.data
    views = TrainViews.from_config(data)(IMAGE[None], (5, 1, 7))
    assert (views.shape, views.dtype) == ((3, 1, 8, 8, 3), np.uint8)
    for number, view in enumerate(views):
        rng = np.random.default_rng((5, 1, 7, number))
        expected = transforms.random_resized_crop(IMAGE, 8, data.crop_scale, data.crop_ratio, rng)
        expected = transforms.random_flip(expected, rng)
        expected = rand_augment(expected, parse("rand-m9-p1", mean_fill(data.mean)), rng)
        expected = random_erasing(expected, 1.0, rng, data.mean, data.std)
        assert np.array_equal(view[0], expected)


def test_what_is_off_draws_nothing():
    config = make_config(**{"data.flip": False})
    rng = np.random.default_rng((1, 2, 3, 0))
    expected = transforms.random_resized_crop(IMAGE, 8, (0.2, 1.0), (3 / 4, 4 / 3), rng)
    assert np.array_equal(TrainViews.from_config(config.data)(IMAGE[None], (1, 2, 3))[0, 0], expected)


def test_a_view_depends_on_its_key_and_number_alone():
    one = TrainViews.from_config(make_config().data)
    four = TrainViews.from_config(make_config(**{"data.repeats": 4}).data)
    views = four(IMAGE[None], (1, 2, 3))
    assert np.array_equal(views[:1], one(IMAGE[None], (1, 2, 3)))
    assert len({view.tobytes() for view in views}) == 4
    assert not np.array_equal(one(IMAGE[None], (1, 2, 3)), one(IMAGE[None], (1, 2, 4)))


def test_evaluation_sees_the_resized_centre_once():
    view = EvalViews.from_config(make_config().data)
    seen = view(IMAGE[None])
    assert seen.shape == view.shape == (1, 1, 8, 8, 3)
    assert np.array_equal(seen[0, 0], transforms.resize_center_crop(IMAGE, 8))


def test_a_policy_that_is_not_understood_is_refused():
    with pytest.raises(ConfigError, match="RandAugment"):
        TrainViews.from_config(make_config(**{"data.randaugment": "rand-x3"}).data)


CLIP = np.random.default_rng(1).integers(0, 256, (4, 20, 30, 3), np.uint8)


def clip_config(**keys):
    return make_config(**{"data.frames": 4, **keys}).data


def test_clips_are_augmented_whole_then_cropped_flipped_and_erased():
    data = clip_config(**{"data.repeats": 2, "data.randaugment": "rand-m9-p1", "data.erasing": 1.0})
    views = TrainViews.from_config(data)(CLIP, (5, 1, 7))
    assert (views.shape, views.dtype) == ((2, 4, 8, 8, 3), np.uint8)
    for number, view in enumerate(views):
        rng = np.random.default_rng((5, 1, 7, number))
        expected = rand_augment(CLIP, parse("rand-m9-p1"), rng)  # grey comes in from outside
        expected = clips.random_resized_crop(expected, 8, data.crop_scale, data.crop_ratio, rng)
        expected = transforms.random_flip(expected, rng)
        expected = random_erasing(expected, 1.0, rng, data.mean, data.std)
        assert np.array_equal(view, expected)


def test_pre_training_crops_clips_at_several_scales():
    data = clip_config(**{"data.crop": "multi_scale", "data.flip": False})
    expected = clips.multi_scale_crop(CLIP, 8, np.random.default_rng((1, 2, 3, 0)))
    assert np.array_equal(TrainViews.from_config(data)(CLIP, (1, 2, 3))[0], expected)


def test_a_test_sees_every_crop_of_every_clip():
    views = EvalViews.from_config(clip_config(), clips=2, crops=3)
    both = np.concatenate([CLIP, CLIP[::-1]])
    seen = views(both)
    assert seen.shape == views.shape == (6, 4, 8, 8, 3)
    for clip, frames in enumerate((CLIP, CLIP[::-1])):
        assert np.array_equal(seen[3 * clip : 3 * clip + 3], clips.crops_along(frames, 8, 3))


TALL, WIDE = (12, 6), (4, 12)


@pytest.mark.parametrize("size", [TALL, WIDE])
def test_views_of_any_shape_squeeze_no_more_than_the_ratio_says(size: tuple[int, int]) -> None:
    """A ramp across the image rises by as much a pixel as one down it, whatever the shape of the view."""
    y, x = np.mgrid[:96, :96]
    ramps = np.stack([2 * y, 2 * x, 0 * x], axis=-1).astype(np.uint8)
    config = make_config(**{"data.image_size": size, "data.crop_ratio": (1.0, 1.0), "data.flip": False})
    views = {"image": TrainViews.from_config(config.data)(ramps[None], (0,))[0, 0]}
    views["evaluated"] = EvalViews.from_config(config.data)(ramps[None])[0, 0]
    config.data.frames = 4
    for crop in ("resized", "multi_scale"):
        config.data.crop = crop
        views[crop] = TrainViews.from_config(config.data)(np.stack([ramps] * 4), (1,))[0, 2]
    views["clip"] = EvalViews.from_config(config.data)(np.stack([ramps] * 4))[0, 2]
    for name, view in views.items():
        assert view.shape == (*size, 3)
        down, across = (np.diff(view[1:-1, 1:-1, c].astype(float), axis=c).mean() for c in (0, 1))
        # Scales of multi_scale may be neighbours: 0.875 or 0.75 / 0.875 of each other, or 0.66 / 0.75.
        assert across / down == pytest.approx(1, rel=0.22 if name == "multi_scale" else 0.12), name


def test_many_crops_of_another_shape_lie_where_there_is_room() -> None:
    config = make_config(**{"data.image_size": (8, 24), "data.frames": 2})
    frames = np.tile(np.arange(48, dtype=np.uint8)[:, None, None], (2, 1, 48, 3))
    views = EvalViews.from_config(config.data, 1, 3)(frames)
    assert views.shape == (3, 2, 8, 24, 3)
    first = views[:, 0, 0, 0, 0].astype(int)
    assert np.diff(first).tolist() == [16, 16]  # of 24 rows of two pixels each, at 0, 8 and 16


@pytest.mark.parametrize("size", [8, (6, 10)])
def test_images_are_read_at_no_less_than_every_view_needs(size: int | tuple[int, int]):
    """The largest scale of the views: at it the smallest crop is just as large as it will be."""
    changes = {"data.repeats": 3, "data.image_size": size}
    views = TrainViews.from_config(make_config(**changes).data)
    rows, columns = views.size
    for number in range(20):
        boxes = [
            transforms.crop_box(90, 120, (0.2, 1.0), transforms.ratio_for((3 / 4, 4 / 3), size), rng)
            for rng in (np.random.default_rng((5, number, view)) for view in range(3))
        ]
        scale = views.least_scale((5, number), 90, 120)
        assert scale == max(max(rows / height, columns / width) for _, _, height, width in boxes)
