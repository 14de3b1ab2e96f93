"""The embedded set of moving images: the label is in the motion and nowhere else."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from amd_jax.data import moving
from amd_jax.data.example import VideoFile
from amd_jax.data.folders import VIDEOS, FolderSource
from amd_jax.data.video import open_video
from amd_jax.errors import ConfigError


def test_each_frame_is_the_last_one_moved_by_the_direction_and_speed_of_the_label():
    source = moving.MovingSource("train")
    assert len(source) == 10_000
    for index in range(16):
        content, label = source[index]
        assert content.shape == (24, 32, 32, 1)
        direction, speed = source.class_names[label].rsplit(" ", 1)
        step = np.array(moving.DIRECTIONS[direction]) * moving.SPEEDS[speed]
        for before, after in itertools.pairwise(content):
            assert np.array_equal(np.roll(before, step, axis=(0, 1)), after)


def test_a_frame_alone_is_as_likely_for_every_motion():
    """Whatever the motion, the image starts anywhere on the canvas."""
    source = moving.MovingSource("train")
    assert [source.label(i) for i in range(32)] == [*range(16), *range(16)]
    starts = np.array([np.random.default_rng((i, False)).integers(32, size=2) for i in range(1600)])
    for label in range(16):
        assert abs(starts[label::16].mean(axis=0) - 15.5).max() < 4
    image = np.zeros((28, 28), np.uint8)
    image[3, 5] = 200
    frames = moving.moved(image, 0, np.array([10, 20]))
    assert (frames.max(axis=(1, 2)) == 200).all()
    assert np.argwhere(frames[0])[0].tolist() == [13, 25, 0]


def test_training_and_evaluation_show_other_videos():
    train, test = moving.MovingSource("train"), moving.MovingSource("eval")
    assert len(test) == 2_000
    assert not np.array_equal(train[0].content, test[0].content)


def test_files_hold_the_videos_and_are_made_once(tmp_path: Path):
    assert moving.main(["--out", str(tmp_path), "--train=20", "--eval=16", "--jobs=1"]) == 0
    source = FolderSource(str(tmp_path), "train", kind=VIDEOS)
    assert (len(source), source.num_classes) == (20, 16)
    files = sorted(tmp_path.rglob("*.mp4"))
    assert len(files) == 36
    times = [file.stat().st_mtime_ns for file in files]
    assert moving.main(["--out", str(tmp_path), "--train=20", "--eval=16", "--jobs=1"]) == 0
    assert [file.stat().st_mtime_ns for file in files] == times
    original = np.asarray(moving.MovingSource("train")[0].content)
    file = tmp_path / "train" / "right slowly" / "00000.mp4"
    with open_video(VideoFile(str(file))) as video:
        assert video.count == moving.FRAMES
        decoded = video.read(np.arange(24), 1)
    assert abs(decoded.astype(float) - original).mean() < 4


def test_more_videos_than_images_show_an_image_again_with_another_motion_from_another_place():
    source = moving.MovingSource("train", "train[9990:30000]")
    assert len(source) == 20_010
    once, again = moving.MovingSource("train")[3], source[13]  # videos 3 and 10,003
    assert (once.label, again.label) == (3, 4)
    assert sorted(once.content[0].ravel()) == sorted(again.content[0].ravel())  # the same image
    assert not np.array_equal(once.content[0], again.content[0])
    assert source.describe(13) == "moving train image 10003"


def test_a_part_of_the_training_videos_can_stand_for_the_evaluation():
    part, whole = (
        moving.MovingSource("eval", "train[40000:44000]"),
        moving.MovingSource("train", "train[:44000]"),
    )
    assert len(part) == 4_000
    np.testing.assert_array_equal(part[7].content, whole[40_007].content)


@pytest.mark.parametrize("name", ["half", "train[5:5]", "test[:10]"])
def test_a_split_that_there_is_not_is_refused(name: str):
    with pytest.raises(ConfigError, match="train_split"):
        moving.MovingSource("train", name)
