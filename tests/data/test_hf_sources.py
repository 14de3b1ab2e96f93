"""Sets of Hugging Face as its own library writes them: rows, classes, splits, and what is wrong with some."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ml_collections import ConfigDict
from PIL import Image

from amd_jax import config
from amd_jax.data import hf_sources, transforms
from amd_jax.data.example import Source
from amd_jax.data.folders import Split
from amd_jax.data.reading import Reader
from amd_jax.data.sampling import StridedViews
from amd_jax.data.sources import make_source
from amd_jax.errors import ConfigError, UserError

datasets = pytest.importorskip("datasets")

NAMES = ["ant", "bee", "cat"]
FORMS = (("RGB", "JPEG"), ("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "WEBP"), ("RGB", "TIFF"))


def encoded(number: int) -> bytes:
    mode, form = FORMS[number % len(FORMS)]
    rng, out = np.random.default_rng(number), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).convert(mode).save(out, form)
    return out.getvalue()


def rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    images = [{"bytes": encoded(i), "path": None} for i in numbers]
    return {
        "image": images,
        "label": [i % 3 for i in numbers],
    }


@pytest.fixture(scope="module")
def made() -> Any:
    """A set of two splits in the memory of their library."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    splits = {"train": rows(13), "test": rows(5, 50)}
    return datasets.DatasetDict({k: datasets.Dataset.from_dict(v, features) for k, v in splits.items()})


def as_saved(made: Any, root: Path) -> Path:
    made.save_to_disk(root, num_shards={"train": 2, "test": 1})
    return root


def as_hub(made: Any, root: Path) -> Path:
    """As `push_to_hub` names and writes files, in row groups of 4."""
    (root / "data").mkdir(parents=True)
    for split, parts in (("train", 2), ("test", 1)):
        for part in range(parts):
            shard = made[split].shard(parts, part, contiguous=True)
            shard.to_parquet(root / f"data/{split}-{part:05}-of-{parts:05}.parquet", batch_size=4)
    return root


def as_converted(made: Any, root: Path) -> Path:
    """As the hub's own conversion, refs/convert/parquet, names files."""
    for split in made:
        (root / "default" / split).mkdir(parents=True)
        made[split].to_parquet(root / "default" / split / "0000.parquet")
    return root


LAYOUTS = {"save_to_disk": as_saved, "hub": as_hub, "converted": as_converted}


def data(root: Path, **keys: object) -> ConfigDict:
    section = config.default().data
    section.update({"source": "hf", "path": str(root), **keys})
    return section


def source(root: Path, split: Split = "train", **keys: object) -> Source:
    return make_source(data(root, **keys), split)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_and_classes_are_those_that_were_written(layout: Any, made: Any, tmp_path: Path) -> None:
    root = layout(made, tmp_path / "set")
    for split, count, first in (("train", 13, 0), ("eval", 5, 50)):
        whole = source(root, split)  # type: ignore[arg-type]
        assert len(whole) == count
        assert (whole.num_classes, whole.class_names) == (3, tuple(NAMES))
        copy = pickle.loads(pickle.dumps(whole))
        for index in np.random.default_rng(0).permutation(count).tolist():
            for one in (whole, copy):
                assert one[index].content == encoded(first + index)
                assert one[index].label == one.label(index) == (first + index) % 3
            pixels, _ = Reader(whole, 3, StridedViews(1, 1, 1)).read(index, (0,))
            np.testing.assert_array_equal(pixels[0], transforms.decode(encoded(first + index), 3))
        assert len({whole.describe(i) for i in range(count)}) == count


def test_few_row_groups_stay_in_memory(made: Any, tmp_path: Path) -> None:
    whole = source(as_hub(made, tmp_path / "set"))
    for index in range(len(whole)):
        assert whole[index].content
        assert len(hf_sources._groups) <= hf_sources.KEPT_GROUPS


def test_a_part_can_be_held_out_and_one_split_alone_is_to_train_on(made: Any, tmp_path: Path) -> None:
    made["train"].save_to_disk(tmp_path / "one")
    held, rest = (source(tmp_path / "one", split, holdout=0.3) for split in ("eval", "train"))  # type: ignore[arg-type]
    assert (len(held), len(rest)) == (4, 9)
    with pytest.raises(UserError, match=r"no split val .*, but train, or hold .*holdout=0.1"):
        source(tmp_path / "one", "eval")


def test_without_metadata_columns_go_by_their_names_and_without_labels_there_are_no_classes(
    tmp_path: Path,
) -> None:
    pq.write_table(pa.table(rows(6)), tmp_path / "train.parquet")
    assert source(tmp_path).num_classes == 3
    pq.write_table(pa.table({"img": rows(6)["image"], "text": ["a"] * 6}), tmp_path / "train.parquet")
    assert (source(tmp_path).num_classes, source(tmp_path)[2].label) == (0, -1)
    pq.write_table(pa.table(rows(6) | {"label": [-1] * 6}), tmp_path / "test.parquet")  # as on the hub
    assert source(tmp_path, "eval").num_classes == 0


def test_a_row_without_an_image_is_an_unreadable_example(tmp_path: Path) -> None:
    table = rows(3)
    table["image"][1] = {"bytes": None, "path": "gone.jpg"}
    table["image"][2] = {"bytes": b"\xff\xd8 no JPEG", "path": None}
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    reader = Reader(source(tmp_path), 3, StridedViews(1, 1, 1))
    for index in (1, 2):
        with pytest.raises(OSError, match=r"no image|UnidentifiedImageError"):
            reader.read(index, (0,))
    failures: list[tuple[int, str]] = []
    assert reader.read_or_next(1, (0,), failures)[1] == 0
    assert [index for index, _ in failures] == [1, 2]


def test_what_is_wrong_with_a_set_is_one_line(made: Any, tmp_path: Path) -> None:
    def fails(root: Path, words: str, **keys: object) -> None:
        with pytest.raises(UserError, match=words) as error:
            source(root, **keys)
        assert "\n" not in str(error.value)

    fails(tmp_path / "none", "no such folder")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "no split train in it, but neither parquet files nor")
    hub = as_hub(made, tmp_path / "hub")
    fails(hub, "no split dev in it, but test, train", train_split="dev")
    with pytest.raises(ConfigError, match="holds images"):
        source(hub, frames=4)
    (hub / "data/train-00001-of-00002.parquet").unlink()
    fails(hub, "1 of 2 files like data/train-00000-of-00002.parquet")
    whole = hub / "data/test-00000-of-00001.parquet"
    whole.write_bytes(whole.read_bytes()[:-100])
    fails(hub, "cannot be read", train_split="test")
    saved = as_saved(made, tmp_path / "saved")
    state = json.loads((saved / "train/state.json").read_text())
    (saved / "train" / state["_data_files"][0]["filename"]).unlink()
    fails(saved, "1 of 2 files are missing")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "empty/train.parquet")
    fails(tmp_path / "empty", "no column of images; it has text")
    pq.write_table(pa.table(rows(2) | {"label": ["a", "b"]}), tmp_path / "empty/train.parquet")
    fails(tmp_path / "empty", "not whole numbers")
    (tmp_path / "empty/other").mkdir()
    pq.write_table(pa.table(rows(2)), tmp_path / "empty/other/train.parquet")
    fails(tmp_path / "empty", "several sets, , other")
