"""What the tests of the streams share: sources that tell what was shown, and a damaged folder."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from amd_jax import config as config_module
from amd_jax.data.example import Example


class Numbers:
    """Images whose pixels tell their index; the label is the index. Indices in `bad` cannot be read."""

    def __init__(self, length: int, bad: tuple[int, ...] = ()) -> None:
        self.num_classes = self.length = length
        self.bad = bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        if index in self.bad:
            raise FileNotFoundError("gone")
        rng = np.random.default_rng(index)
        return Example(rng.integers(0, 256, (20, 24, 3), np.uint8), index)

    def describe(self, index: int) -> str:
        return f"number {index}"


def make_config(**keys: object) -> ConfigDict:
    config = config_module.default()
    config.update({"seed": 5, "batch_size": 6})
    config.data.update({"image_size": 8, "threads": 2, "prefetch": 2})
    config.update_from_flattened_dict(keys)
    return config


@pytest.fixture
def damaged(tmp_path: Path) -> ConfigDict:
    """A folder of 12 JPEG files, of which three are damaged in different ways; labels are 0 and 1."""
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    cut = tmp_path / "train" / "a" / "04.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "train" / "a" / "06.jpg").write_bytes(b"")
    (tmp_path / "train" / "b" / "01.jpg").write_bytes(b"\xff\xd8 not a JPEG")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    return make_config(**{"data.source": "folder", "data.path": str(tmp_path), "batch_size": 12})


@pytest.fixture(scope="session")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Called with a name from `movies.KINDS`: the path of that video, made once."""
    from tests.data import movies  # imports PyAV

    folder = tmp_path_factory.mktemp("movies")
    return cache(lambda name: movies.make(name, folder))
