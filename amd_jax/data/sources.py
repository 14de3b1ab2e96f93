"""Where labelled images and videos come from; a small set of images comes with the code.

A source hands out one undecoded example per index, in a fixed order, and can be pickled into a reader
process at little cost. Decoding and augmentation are `transforms.py`'s business, order is `pipeline.py`'s.
No source needs TensorFlow.
"""

import functools
import io
import lzma
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amd_jax.config import KEYS, ConfigError
from amd_jax.data.clip_records import ClipRecordSource
from amd_jax.data.example import Example, Source
from amd_jax.data.folders import IMAGES, FolderSource, Split, kind_of_videos, split_folder
from amd_jax.data.subset import balanced_part
from amd_jax.data.tfds_sources import TfdsVideoSource, tfds_source
from amd_jax.data.video_sources import ManifestSource


def make_source(data: ConfigDict, split: Split) -> Source:
    """The source that the `data` section of a config names.

    Args:
      data: the section; `source`, `name`, `path`, `frames`, `share`, `train_split` and `eval_split` are read.
      split: which role the examples play; the section may name the split that plays it.

    Raises:
      ConfigError: the data are not there or not of the expected form.
    """
    source = _whole_source(data, split)
    return balanced_part(source, data.share) if split == "train" and data.share < 1 else source


def _whole_source(data: ConfigDict, split: Split) -> Source:
    name = data.train_split if split == "train" else data.eval_split
    videos = data.frames > 1
    match data.source:
        case "embedded":
            return EmbeddedSource(split, name)
        case "folder":
            kind = kind_of_videos(split_folder(data.path, split, name)) if videos else IMAGES
            return FolderSource(data.path, split, name, data.train_split or "train", kind)
        case "tfds" if videos:
            return TfdsVideoSource(data.name, data.path, split, name)
        case "tfds":
            return tfds_source(data.name, data.path, split, name)
        case "manifest" | "clips" if not videos:
            raise ConfigError(f"data.source={data.source!r}: it holds videos; set data.frames to 2 or more")
        case "manifest":
            return ManifestSource(data.path, split, name, data.train_split)
        case "clips":
            return ClipRecordSource(data.path, split, name)
    choices = ", ".join(map(repr, KEYS["data.source"].choices))
    raise ConfigError(f"data.source={data.source!r}: choose one of {choices}")


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

    def __init__(self, split: Split, name: str = "") -> None:
        if name:
            raise ConfigError(
                f"data.{split}_split={name!r}: the embedded set has fixed splits; leave it empty"
            )
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
