"""Sources: what they read, in which order, and what they say when something is missing."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_tfds import FOLDER as TFDS_FOLDER
from make_tfds import shape_image
from ml_collections import ConfigDict
from PIL import Image

from amd_jax import config
from amd_jax.data import prepare, transforms
from amd_jax.data.embedded.make import first_of_each_class
from amd_jax.data.sources import make_source
from amd_jax.errors import DataError


def data(**keys: object) -> ConfigDict:
    section = config.default().data
    section.update(keys)
    return section


def write_images(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), number, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["train/b/2.png", "train/b/1.JPEG", "train/a/x/9.Png", "train/a/3.jpg", "train/c/1.webp"]
    write_images(tmp_path, [*names, "train/a/._3.jpg.png", "val/c/1.png", "val/a/7.jpg"])
    (tmp_path / "train/a/._3.jpg.png").rename(tmp_path / "train/a/._3.jpg")
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    return tmp_path


def test_embedded_is_balanced():
    for split, count in (("train", 1000), ("eval", 200)):
        source = make_source(data(source="embedded"), split)
        labels = [source[i].label for i in range(len(source))]
        assert np.bincount(labels).tolist() == [count] * 10
        assert source[3].content.shape == (28, 28)
        assert source[3].content.dtype == np.uint8
    assert source.num_classes == len(source.class_names) == 10
    assert source.describe(3) == "embedded eval image 3"


def test_embedded_begins_like_the_original():
    train = make_source(data(source="embedded"), "train")
    assert [train[i].label for i in range(10)] == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert train[0].content.sum() == 76247


def test_embedded_pickles_without_its_pixels():
    source = make_source(data(source="embedded"), "train")
    packed = pickle.dumps(source)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed)[7].content, source[7].content)


def test_first_of_each_class():
    labels = np.array([*range(10), *range(10), 3])
    assert first_of_each_class(labels, 1).tolist() == list(range(10))


def test_folder_order_and_labels(folder: Path):
    source = make_source(data(source="folder", path=str(folder)), "train")
    names = [Path(source.describe(i)).relative_to(folder).as_posix() for i in range(len(source))]
    assert names == [
        "train/a/3.jpg",
        "train/a/x/9.Png",
        "train/b/1.JPEG",
        "train/b/2.png",
        "train/c/1.webp",
    ]
    assert [source[i].label for i in range(5)] == [0, 0, 1, 1, 2]
    assert source.num_classes == 3
    assert source[3].content == (folder / "train/b/2.png").read_bytes()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.describe(4) == source.describe(4)


def test_folder_eval_uses_the_classes_of_train(folder: Path):
    source = make_source(data(source="folder", path=str(folder)), "eval")
    assert [source[i].label for i in range(len(source))] == [0, 2]
    assert source.num_classes == 3


def test_folder_eval_without_train(tmp_path: Path):
    write_images(tmp_path, ["test/q/1.png", "test/p/1.png"])
    source = make_source(data(source="folder", path=str(tmp_path)), "eval")
    assert source.class_names == ("p", "q")


def test_folder_named_split(folder: Path):
    (folder / "train").rename(folder / "big")
    keys = {"source": "folder", "path": str(folder), "train_split": "big"}
    assert len(make_source(data(**keys), "train")) == 5
    assert make_source(data(**keys), "eval").num_classes == 3


def one_line(error: pytest.ExceptionInfo[DataError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_folder_errors(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    def fails(root: Path, split: str, *parts: str, **keys: str) -> None:
        with pytest.raises(DataError) as error:
            make_source(data(source="folder", path=str(root), **keys), split)
        one_line(error, *parts)

    empty = tmp_path_factory.mktemp("empty")
    fails(empty / "absent", "train", "absent", "no such folder")
    fails(empty, "train", "no folder train")
    fails(empty, "eval", "val or validation or test", "data.eval_split", "--config.data.holdout=0.1")
    fails(folder, "eval", "no folder dev", eval_split="dev")
    write_images(empty, ["train/loose.png"])
    (empty / "train" / "a").mkdir()
    fails(empty, "train", "/a", "no .jpg")
    (empty / "val" / "a").mkdir(parents=True)
    fails(empty, "eval", "no .jpg")
    (folder / "val" / "zebra").mkdir()
    fails(folder, "eval", "'zebra'", "not in")


def test_tfds_reads_a_prepared_set():
    keys = {"source": "tfds", "name": "tiny_shapes", "path": str(TFDS_FOLDER)}
    for split, size, tfds_split in (("train", 24, "train"), ("eval", 8, "test")):
        source = make_source(data(**keys), split)
        assert len(source) == size
        assert source.num_classes == 3
        assert source.class_names == ("bar", "block", "ramp")
        copy = pickle.loads(pickle.dumps(source))
        for index in (0, size - 1, 0):  # the second reading of 0 comes from memory
            example = source[index]
            assert isinstance(example.content, np.ndarray)  # so small that it is kept as pixels
            assert example.label == index % 3
            pixels = transforms.decode(example.content, 3)
            assert np.array_equal(pixels, shape_image(tfds_split, index))
            assert np.array_equal(copy[index].content, example.content)
            assert copy[index].label == example.label
    assert source.describe(5) == "tiny_shapes/1.0.0 test record 5"
    part = make_source(data(**keys, train_split="train[:25%]"), "train")
    assert len(part) == 6


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"name": "absent"}, ["data.name='absent'", "amd_jax.data.prepare --name=absent"]),
        ({"name": "tiny_shapes:2.0.0"}, ["1.0.0"]),
        ({"train_split": "dev"}, ["data.train_split='dev'", "train, test"]),
        ({"train_split": "train[:x]"}, ["data.train_split='train[:x]'"]),
    ],
)
def test_tfds_errors(keys: dict[str, str], parts: list[str]):
    keys = {"source": "tfds", "name": "tiny_shapes", "path": str(TFDS_FOLDER), **keys}
    with pytest.raises(DataError) as error:
        make_source(data(**keys), "train")
    one_line(error, *parts)


def copy_of_tiny_shapes(target: Path, version: str = "1.0.0") -> Path:
    folder = target / version
    folder.mkdir(parents=True)
    for file in (TFDS_FOLDER / "tiny_shapes" / "1.0.0").iterdir():
        text = file.read_bytes().replace(b'"version": "1.0.0"', f'"version": "{version}"'.encode())
        (folder / file.name).write_bytes(text)
    return folder


def test_tfds_takes_the_newest_version_and_knows_configs(tmp_path: Path):
    for version in ("9.0.0", "10.0.0"):
        copy_of_tiny_shapes(tmp_path / "tiny_shapes", version)
    newest = make_source(data(source="tfds", name="tiny_shapes", path=str(tmp_path)), "train")
    assert newest.describe(0).startswith("tiny_shapes/10.0.0")
    copy_of_tiny_shapes(tmp_path / "many" / "small")
    with pytest.raises(DataError, match="many/small"):
        make_source(data(source="tfds", name="many", path=str(tmp_path)), "train")


def test_tfds_refuses_sets_that_are_not_for_classification(tmp_path: Path):
    folder = copy_of_tiny_shapes(tmp_path / "tiny_shapes")
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"label": {', '"target": {'))
    (folder / "label.labels.txt").unlink()
    with pytest.raises(DataError) as error:
        make_source(data(source="tfds", name="tiny_shapes", path=str(tmp_path)), "train")
    one_line(error, "tiny_shapes", "'label'")


def test_reading_loads_no_tensorflow_and_sources_no_jax():
    program = f"""
import sys
from amd_jax import config
from amd_jax.data import prepare, sources, transforms
data = config.default().data
data.update(source='tfds', name='tiny_shapes', path={str(TFDS_FOLDER)!r})
assert sources.make_source(data, 'train')[0].label == 0
assert 'jax' not in sys.modules
from amd_jax.data import pipeline
assert 'tensorflow' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_gzip_headers_are_restored(tmp_path: Path):
    name = "train-labels-idx1-ubyte.gz"
    stripped = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"stream"
    (tmp_path / name).write_bytes(stripped)
    (tmp_path / "fixed").mkdir()
    prepare.restore_gzip_headers(tmp_path, [name], tmp_path / "fixed")
    restored = (tmp_path / "fixed" / name).read_bytes()
    assert restored.endswith(b"\x00\x03train-labels-idx1-ubyte\x00stream")
    prepare.restore_gzip_headers(tmp_path / "fixed", [name], tmp_path)  # an original stays as it is
    assert (tmp_path / name).read_bytes() == restored
    with pytest.raises(DataError, match="missing"):
        prepare.restore_gzip_headers(tmp_path, ["t10k-labels-idx1-ubyte.gz"], tmp_path / "fixed")


def test_preparing_without_tensorflow_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        prepare.prepare("fashion_mnist", str(tmp_path))
    one_line(error, "pip install -r requirements-tfds.txt")
