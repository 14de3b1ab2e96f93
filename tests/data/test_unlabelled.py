"""Folders without classes: what is taken of them, and what stays a folder of classes."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from amd_jax import config
from amd_jax.data.example import FrameFiles, VideoFile
from amd_jax.data.folders import Split
from amd_jax.data.sources import make_source
from amd_jax.errors import DataError


def images(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(root / name)
    return root


def data(root: Path, **keys: object) -> ConfigDict:
    section = config.default().data
    section.update({"source": "folder", "path": str(root), **keys})
    return section


def found(root: Path, split: Split = "train", **keys: object) -> tuple[list[str], list[int]]:
    """Paths relative to `root` and labels."""
    source = pickle.loads(pickle.dumps(make_source(data(root, **keys), split)))
    paths = [str(Path(source.describe(i)).relative_to(root)) for i in range(len(source))]
    assert (source.num_classes == 0) == (source.class_names == ())
    return paths, [source[i].label for i in range(len(source))]


def test_all_images_below_a_folder_without_splits_are_to_train_on(tmp_path: Path) -> None:
    images(tmp_path, "b.jpg", "x/a.png", "x/y/z/c.webp", ".hidden/d.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    assert found(tmp_path) == (["b.jpg", "x/a.png", "x/y/z/c.webp"], [-1] * 3)
    with pytest.raises(DataError, match="no folder val"):
        found(tmp_path, "eval")


def test_splits_without_class_folders_have_no_labels_and_those_with_have(tmp_path: Path) -> None:
    images(tmp_path, "train/2.jpg", "train/1.jpg", "val/k/3.jpg", "val/l/4.jpg", "test/5.jpg")
    assert found(tmp_path) == (["train/1.jpg", "train/2.jpg"], [-1, -1])
    assert found(tmp_path, "eval") == (["val/k/3.jpg", "val/l/4.jpg"], [0, 1])
    assert found(tmp_path, "eval", eval_split="test") == (["test/5.jpg"], [-1])
    # The same folder by another name: its folders are the classes.
    assert found(tmp_path, train_split="val") == (["val/k/3.jpg", "val/l/4.jpg"], [0, 1])
    assert found(tmp_path / "val", train_split=".") == (["k/3.jpg", "l/4.jpg"], [0, 1])


def test_files_beside_class_folders_are_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "train/a/1.jpg", "train/3.jpg", "train/2.jpg")
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert found(tmp_path) == (["train/a/1.jpg"], [0])
    assert "2 files beside the class folders, as 2.jpg, are passed over" in caplog.text


def test_clips_are_files_or_folders_of_frames_at_any_depth(tmp_path: Path) -> None:
    images(tmp_path, "x/clip/1.jpg", "x/clip/2.jpg")
    (tmp_path / "y.mp4").write_bytes(b"")
    source = make_source(data(tmp_path, frames=2), "train")
    frames, file = (source[i].content for i in range(2))
    assert frames == FrameFiles(str(tmp_path / "x/clip"), 2, "{:01d}.jpg", 1)
    assert file == VideoFile(str(tmp_path / "y.mp4"))
    assert source.num_classes == 0


def test_clips_of_a_split_without_classes(tmp_path: Path) -> None:
    frames = ("train/clip/1.jpg", "train/clip/2.jpg", "train/other/1.jpg")
    images(tmp_path, *frames, "val/class/clip/1.jpg")
    assert found(tmp_path, frames=2) == (["train/clip", "train/other"], [-1, -1])
    assert found(tmp_path, "eval", frames=2) == (["val/class/clip"], [0])


def test_a_share_of_what_has_no_classes(tmp_path: Path) -> None:
    images(tmp_path, *(f"{i}.jpg" for i in range(10)))
    small, large = (set(found(tmp_path, share=share)[0]) for share in (0.2, 0.5))
    assert len(small) == 2
    assert len(large) == 5
    assert small < large


@pytest.mark.parametrize(
    ("names", "keys", "words"),
    [
        ([], {}, "no folder train in it.* without classes: .*: no .jpg"),
        ([], {"frames": 2}, "no folder train in it.* without classes: .*: no .mp4"),
        (["val/1.jpg"], {}, "no folder train in it; make it"),
        (["1.jpg"], {"train_split": "big"}, "no folder big in it; make it"),
        (["train/.a.jpg"], {}, "train: no .jpg"),
    ],
)
def test_where_nothing_is_one_line_says_so(
    names: list[str], keys: dict[str, object], words: str, tmp_path: Path
) -> None:
    for name in names:
        images(tmp_path, name)
    with pytest.raises(DataError, match=words) as error:
        make_source(data(tmp_path, **keys), "train")
    assert "\n" not in str(error.value)
