"""Data in a bucket: prepared sets are read there, single files are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from make_tfds import FOLDER as TFDS_FOLDER
from ml_collections import ConfigDict

from amd_jax import buckets
from amd_jax.data import prepare_video
from amd_jax.data.sources import make_source
from amd_jax.errors import ConfigError, DataError
from tests.data.conftest import make_config


def section(path: object, **keys: object) -> ConfigDict:
    """The section `data` of a config."""
    data = make_config().data
    data.update({"path": str(path), **keys})
    return data


@pytest.mark.parametrize(("name", "frames"), [("tiny_shapes", 1), ("tiny_clips", 2)])
def test_a_tfds_set_is_read_from_a_bucket(name: str, frames: int, bucket: str) -> None:
    buckets.filesystem().put(str(TFDS_FOLDER / name), f"{bucket}/sets/{name}", recursive=True)
    keys = {"source": "tfds", "name": name, "frames": frames}
    here, there = (make_source(section(path, **keys), "train") for path in (TFDS_FOLDER, f"{bucket}/sets"))
    assert len(here) == len(there)
    for i in (0, len(here) - 1):
        assert there[i].label == here[i].label
        np.testing.assert_equal(there[i].content, here[i].content)
    with pytest.raises(DataError, match=r"not prepared in data\.path"):
        make_source(section(bucket, **keys), "train")


def test_prepared_clips_are_read_from_a_bucket(
    movie: Callable[[str], Path], bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "videos" / "train" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "train" / "a" / "one.mp4").symlink_to(movie("all_keys.mp4"))
    out = tmp_path / "clips"
    made = [f"--path={tmp_path / 'videos'}", "--source=folder", "--jobs=1"]
    assert prepare_video.main([*made, f"--output={out}"]) == 0
    buckets.filesystem().put(str(out), f"{bucket}/clips", recursive=True)
    keys = {"source": "clips", "frames": 2}
    here, there = (make_source(section(path, **keys), "train") for path in (out, f"{bucket}/clips"))
    assert there.class_names == here.class_names
    assert [there[i] for i in range(len(there))] == [here[i] for i in range(len(here))]
    assert there.describe(0) == f"{bucket}/clips/train/clips-00000-of-00001.array_record record 0"
    assert prepare_video.main([*made, f"--output={bucket}/clips"]) == 2  # which only a disk takes


@pytest.mark.parametrize("source", ["folder", "manifest"])
def test_single_files_in_a_bucket_are_refused_with_what_to_do(source: str) -> None:
    with pytest.raises(ConfigError, match="gcloud storage rsync"):
        make_source(section("gs://bucket/images", source=source), "train")
