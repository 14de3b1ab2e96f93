"""Where labelled images come from: TFDS sets, folders of files, and a small set that comes with the code.

A source hands out one undecoded example per index, in a fixed order, and can be pickled into a reader
process at little cost. Decoding and augmentation are `transforms.py`'s business, order is `pipeline.py`'s.
No source needs TensorFlow.
"""

import contextlib
import functools
import io
import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from amd_jax.config import ConfigError
from amd_jax.data.example import Example, Source
from amd_jax.data.subset import balanced_part

Split = Literal["train", "eval"]

# A TFDS set up to this size on disk stays in memory once it has been read: parsing a record takes 0.1 ms or
# more, which is nothing beside a photograph but several times the work on a 28×28 image.
KEEP_IN_MEMORY_BYTES = 256 * 2**20
# Where all of its images take no more than that as pixels either, they are kept decoded.

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def make_source(data: ConfigDict, split: Split) -> Source:
    """The source that the `data` section of a config names.

    Args:
      data: the section; `source`, `name`, `path`, `share`, `train_split` and `eval_split` are read.
      split: which role the examples play; the section may name the split that plays it.

    Raises:
      ConfigError: the data are not there or not of the expected form.
    """
    source = _whole_source(data, split)
    return balanced_part(source, data.share) if split == "train" and data.share < 1 else source


def _whole_source(data: ConfigDict, split: Split) -> Source:
    name = data.train_split if split == "train" else data.eval_split
    if data.source == "embedded":
        if name:
            raise ConfigError(
                f"data.{split}_split={name!r}: the embedded set has fixed splits; leave it empty"
            )
        return EmbeddedSource(split)
    if data.source == "folder":
        return FolderSource(data.path, split, name, train_name=data.train_split or "train")
    if data.source == "tfds":
        return _tfds_source(data.name, data.path, split, name)
    raise ConfigError(f"data.source={data.source!r}: choose one of 'embedded', 'folder', 'tfds'")


@functools.lru_cache(maxsize=4)
def _tfds_source(name: str, data_dir: str, split: Split, split_name: str) -> "TfdsSource":
    """Once for a process: a set that is kept in memory is read once for all runs of a comparison."""
    return TfdsSource(name, data_dir, split, split_name)


class EmbeddedSource:
    """10,000 training and 2,000 test images of Fashion-MNIST, [28, 28] grey, 10 classes of equal size."""

    num_classes = 10
    class_names: tuple[str, ...] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def __init__(self, split: Split) -> None:
        self._split = split
        arrays = _embedded_arrays()
        self._images, self._labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]

    def __reduce__(self) -> tuple[type, tuple[Split]]:
        return EmbeddedSource, (self._split,)  # a reader process unpacks the file itself

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        return Example(self._images[index], self.label(index))

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def describe(self, index: int) -> str:
        return f"embedded {self._split} image {index}"


@functools.cache
def _embedded_arrays() -> dict[str, np.ndarray]:
    """{train, eval}_images [N, 28, 28] and _labels [N], uint8; unpacking takes about 0.4 s, once."""
    packed = Path(__file__).with_name("embedded") / "fashion_mnist.npz.xz"
    with np.load(io.BytesIO(lzma.decompress(packed.read_bytes()))) as arrays:
        return dict(arrays)


class FolderSource:
    """Image files in one folder per class: `root/split/class/**/name.jpg`, ordered by class, then by path.

    Classes are the folder names of the training split in sorted order, in evaluation too, so that labels
    agree; a set without a training split is numbered by its own folders. Names that start with a dot are
    passed over. Paths are kept in one bytes object: about 40 MB for ImageNet.
    """

    def __init__(self, root: str, split: Split, name: str = "", train_name: str = "train") -> None:
        """Args: `root` as data.path, `name` of the split's folder (empty: its usual names)."""
        usual = ("train",) if split == "train" else ("val", "validation", "test")
        names = (name,) if name else usual
        if not root or not os.path.isdir(root):
            raise ConfigError(f"data.path={root!r}: no such folder; it must hold {names[0]}/<class>/<image>")
        found = [candidate for candidate in names if os.path.isdir(os.path.join(root, candidate))]
        if not found:
            raise ConfigError(
                f"data.path={root!r}: no folder {' or '.join(names)} in it; make it or set data.{split}_split"
            )
        self._folder = os.path.join(root, found[0])
        own = _class_folders(self._folder)
        if not own:
            raise ConfigError(
                f"{self._folder}: no class folders; images must lie in {found[0]}/<class>/<image>"
            )
        train = os.path.join(root, train_name)
        self.class_names = tuple((_class_folders(train) if os.path.isdir(train) else []) or own)
        self.num_classes = len(self.class_names)
        present = set(own)
        unknown = sorted(present - set(self.class_names))
        if unknown:
            raise ConfigError(
                f"{self._folder}: class {unknown[0]!r} (and {len(unknown) - 1} others) is not in {train};"
                " rename or remove it"
            )
        paths: list[bytes] = []
        labels: list[np.ndarray] = []
        for label, class_name in enumerate(self.class_names):
            files = sorted(_image_files(self._folder, class_name)) if class_name in present else []
            if not files and split == "train":
                raise ConfigError(
                    f"{os.path.join(self._folder, class_name)}: no {'/'.join(IMAGE_SUFFIXES)} files;"
                    " fill the folder or remove it"
                )
            paths.extend(os.fsencode(path) for path in files)
            labels.append(np.full(len(files), label, np.int32))
        if not paths:
            raise ConfigError(f"{self._folder}: no {'/'.join(IMAGE_SUFFIXES)} files in its class folders")
        self._labels = np.concatenate(labels)
        self._paths = b"".join(paths)
        self._ends = np.cumsum([len(path) for path in paths])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        with open(self.describe(index), "rb") as file:
            return Example(file.read(), self.label(index))

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def describe(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.path.join(self._folder, os.fsdecode(self._paths[start : self._ends[index]]))


def _class_folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _image_files(folder: str, inside: str) -> Iterator[str]:
    """Paths relative to `folder` of the images at any depth below `folder/inside`."""
    with os.scandir(os.path.join(folder, inside)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{inside}/{entry.name}"
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield path
            elif entry.is_dir():
                yield from _image_files(folder, path)


class TfdsSource:
    """A prepared TFDS set for image classification, read from its ArrayRecord files without TensorFlow."""

    def __init__(self, name: str, data_dir: str, split: Split, split_name: str = "") -> None:
        """Args: `name` as TFDS writes it (`set`, `set/config`, `set:1.0.0`), `data_dir` as data.path."""
        import tensorflow_datasets as tfds

        data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        # The builder is made from the prepared files alone: the set's own module could need TensorFlow.
        builder = tfds.builder_from_directory(_prepared_folder(name, data_dir))
        self._id = builder.info.full_name
        splits = list(builder.info.splits)
        usual = ("train",) if split == "train" else ("validation", "test")
        self._split = split_name or next((s for s in usual if s in splits), usual[0])
        if re.split(r"[\[+]", self._split)[0] not in splits:
            raise ConfigError(
                f"data.{split}_split={self._split!r}: {self._id} has the splits {', '.join(splits)}"
            )
        decoders, self.num_classes = _image_decoders(self._id, builder.info.features, tfds)
        self.class_names = tuple(builder.info.features["label"].names or ())
        try:
            self._records: Any = builder.as_data_source(split=self._split, decoders=decoders)
        except NotImplementedError as error:
            raise ConfigError(
                f"data.name={name!r}: {builder.data_dir} is not in ArrayRecord form; "
                + _how_to_prepare(name, data_dir)
            ) from error
        except (ValueError, KeyError) as error:  # a slice TFDS cannot read, such as train[:x]
            raise ConfigError(
                f"data.{split}_split={self._split!r}: not a split of {self._id}; write e.g. train[:90%]"
            ) from error
        self._keep = builder.info.dataset_size <= KEEP_IN_MEMORY_BYTES
        self._kept: dict[int, Example] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        if index in self._kept:
            return self._kept[index]
        try:
            record = self._records[index]
            image, example = record["image"], Example(record["image"], int(record["label"]))
        except Exception as error:  # what a damaged record raises depends on the layer that notices
            raise OSError(f"unreadable record: {error}") from error
        if self._keep:
            example = self._kept[index] = example._replace(content=self._unpacked(image))
        return example

    def label(self, index: int) -> int:
        return self[index].label  # the label is a part of the record

    def _unpacked(self, image: bytes | np.ndarray) -> bytes | np.ndarray:
        """The pixels of a small grey or colour image; anything else as it is, for `transforms.decode`."""
        if isinstance(image, bytes):
            # What is damaged stays as it is: decoding says what is wrong with it.
            with contextlib.suppress(Exception), Image.open(io.BytesIO(image)) as opened:
                bytes_of_all = opened.width * opened.height * len(opened.mode) * len(self)
                if opened.mode in ("L", "RGB") and bytes_of_all <= KEEP_IN_MEMORY_BYTES:
                    return np.asarray(opened)
        return image

    def describe(self, index: int) -> str:
        return f"{self._id} {self._split} record {index}"


def _prepared_folder(name: str, data_dir: str) -> str:
    """`data_dir/set[/config]/version` of the newest prepared version, or of the one that `name` asks for."""
    from etils import epath  # TFDS's own paths: a bucket works as well

    set_name, _, version = name.partition(":")
    folder = epath.Path(data_dir).expanduser() / set_name
    children = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    versions = [child for child in children if re.fullmatch(r"\d+\.\d+\.\d+", child)]
    matching = [v for v in versions if version in ("", v) and (folder / v / "dataset_info.json").exists()]
    if matching:
        newest = max(matching, key=lambda v: tuple(int(part) for part in v.split(".")))
        return os.fspath(folder / newest)
    if versions and version:
        raise ConfigError(f"data.name={name!r}: {folder} has the versions {', '.join(sorted(versions))}")
    configs = sorted(c for c in children if any((folder / c).glob("*/dataset_info.json")))
    if configs:
        raise ConfigError(
            f"data.name={name!r}: the set has configs; write data.name='{set_name}/{configs[0]}'"
            f" or another of {', '.join(configs)}"
        )
    raise ConfigError(
        f"data.name={name!r}: not prepared in data.path={data_dir!r}; {_how_to_prepare(name, data_dir)}"
    )


def _how_to_prepare(name: str, data_dir: str) -> str:
    return f"run python -m amd_jax.data.prepare --name={name} --data_dir={data_dir}"


def _image_decoders(set_name: str, features: Any, tfds: Any) -> tuple[dict[str, Any] | None, int]:
    """Decoders that leave encoded images encoded, and the number of classes."""
    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = named.get("image"), named.get("label")
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise ConfigError(f"data.name: {set_name} has no class 'label'; take an image classification set")
    if isinstance(image, tfds.features.Image) and np.dtype(image.np_dtype) == np.uint8:
        return {"image": tfds.decode.SkipDecoding()}, label.num_classes
    if isinstance(image, tfds.features.Tensor) and np.dtype(image.np_dtype) == np.uint8:
        return None, label.num_classes
    raise ConfigError(f"data.name: {set_name} has no 8-bit 'image'; take an image classification set")
