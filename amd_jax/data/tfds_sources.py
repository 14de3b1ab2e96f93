"""Prepared sets of TensorFlow Datasets, read from their ArrayRecord files without TensorFlow."""

import contextlib
import functools
import io
import json
import os
import re
from typing import Any

import numpy as np
from PIL import Image

from amd_jax.buckets import place
from amd_jax.data.example import EncodedFrames, Example
from amd_jax.data.folders import HOLDOUT, Split
from amd_jax.errors import DataError

# A TFDS set up to this size on disk stays in memory once it has been read: parsing a record takes 0.1 ms or
# more, which is nothing beside a photograph but several times the work on a 28×28 image.
KEEP_IN_MEMORY_BYTES = 256 * 2**20
# Where all of its images take no more than that as pixels either, they are kept decoded.


@functools.lru_cache(maxsize=4)
def tfds_source(name: str, data_dir: str, split: Split, split_name: str) -> "TfdsSource":
    """Once for a process: a set that is kept in memory is read once for all runs of a comparison."""
    return TfdsSource(name, data_dir, split, split_name)


class TfdsSource:
    """A prepared TFDS set for image classification, read from its ArrayRecord files without TensorFlow."""

    def __init__(self, name: str, data_dir: str, split: Split, split_name: str = "") -> None:
        """Args: `name` as TFDS writes it (`set`, `set/config`, `set:1.0.0`), `data_dir` as data.path."""
        import tensorflow_datasets as tfds

        data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        # The builder is made from the prepared files alone: the set's own module could need TensorFlow.
        builder = tfds.builder_from_directory(_prepared_folder(name, data_dir))
        self._id = builder.info.full_name
        self._split = _chosen_split(self._id, list(builder.info.splits), split, split_name)
        decoders, self.num_classes = _image_decoders(self._id, builder.info.features, tfds)
        self.class_names = tuple(builder.info.features["label"].names or ())
        try:
            self._records: Any = builder.as_data_source(split=self._split, decoders=decoders)
        except NotImplementedError as error:
            raise _not_array_record(name, data_dir) from error
        except (ValueError, KeyError) as error:  # a slice TFDS cannot read, such as train[:x]
            raise _not_a_slice(self._id, split, self._split) from error
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


class TfdsVideoSource:
    """A prepared TFDS set of labelled videos, such as ucf101, which TFDS keeps as one image a frame.

    TFDS itself cannot describe a `Video` feature without TensorFlow. So only its list of files is used here,
    and the records (`tf.train.Example`) are taken apart by their definition, which TFDS brings along.
    """

    def __init__(self, name: str, data_dir: str, split: Split, split_name: str = "") -> None:
        """Args: as of `TfdsSource`."""
        import tensorflow_datasets as tfds
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        folder = _prepared_folder(name, data_dir)
        info = tfds.core.dataset_info.read_proto_from_builder_dir(folder)
        self._id = f"{name.partition(':')[0]}/{info.version}"
        self.class_names, self.num_classes = _video_classes(self._id, folder)
        if info.file_format != "array_record":
            raise _not_array_record(name, data_dir)
        template = tfds.core.naming.ShardedFileTemplate(
            dataset_name=info.name, data_dir=folder, filetype_suffix=info.file_format
        )
        splits = tfds.core.splits.SplitDict.from_proto(info.splits, template)
        self._split = _chosen_split(self._id, list(splits), split, split_name)
        try:
            files = splits[self._split].file_instructions
        except (ValueError, KeyError) as error:
            raise _not_a_slice(self._id, split, self._split) from error
        if not files:
            raise DataError(f"data.{split}_split={self._split!r}: no example of {self._id} is in it")
        self._records: Any = ArrayRecordDataSource(files)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        features = self._features(index)
        return Example(EncodedFrames(tuple(features["video"].bytes_list.value)), _label(features))

    def label(self, index: int) -> int:
        return _label(self._features(index))  # the label is a part of the record

    def describe(self, index: int) -> str:
        return f"{self._id} {self._split} record {index}"

    def _features(self, index: int) -> Any:
        """The record as a mapping from names to `tf.train.Feature`s; raises OSError."""
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            features = tf_example_pb2.Example.FromString(self._records[index]).features.feature
        except Exception as error:  # what a damaged record raises depends on the layer that notices
            raise OSError(f"unreadable record: {error}") from error
        if not features["label"].int64_list.value:
            raise OSError("unreadable record: it has no label")
        return features


def _label(features: Any) -> int:
    return int(features["label"].int64_list.value[0])


def _video_classes(set_name: str, folder: str) -> tuple[tuple[str, ...], int]:
    """Names and number of the classes of the prepared set in `folder`, if it is one of labelled videos."""
    from etils import epath

    described = json.loads((epath.Path(folder) / "features.json").read_text())
    features = described.get("featuresDict", {}).get("features", {})
    video, label = (features.get(name, {}) for name in ("video", "label"))
    if not str(video.get("pythonClassName")).endswith(".Video") or video["video"].get("dtype") != "uint8":
        raise DataError(
            f"data.name: {set_name} has no 8-bit 'video'; take a set of videos, or data.frames=1 for images"
        )
    classes = int(label.get("classLabel", {}).get("numClasses", 0))
    if not classes:
        raise DataError(f"data.name: {set_name} has no class 'label'; take a video classification set")
    names = epath.Path(folder) / "label.labels.txt"
    return tuple(names.read_text().splitlines()) if names.exists() else (), classes


def _chosen_split(set_name: str, splits: list[str], split: Split, name: str) -> str:
    """`name`, or the split that usually plays the role; raises DataError where the set lacks it."""
    usual = ("train",) if split == "train" else ("validation", "test")
    chosen = name or next((s for s in usual if s in splits), usual[0])
    if re.split(r"[\[+]", chosen)[0] not in splits:
        hint = HOLDOUT if split == "eval" and not name else ""
        raise DataError(f"data.{split}_split={chosen!r}: {set_name} has the splits {', '.join(splits)}{hint}")
    return chosen


def _not_array_record(name: str, data_dir: str) -> DataError:
    return DataError(
        f"data.name={name!r}: {_prepared_folder(name, data_dir)} is not in ArrayRecord form; "
        + _how_to_prepare(name, data_dir)
    )


def _not_a_slice(set_name: str, split: Split, chosen: str) -> DataError:
    return DataError(f"data.{split}_split={chosen!r}: not a split of {set_name}; write e.g. train[:90%]")


def _prepared_folder(name: str, data_dir: str) -> str:
    """`data_dir/set[/config]/version` of the newest prepared version, or of the one that `name` asks for."""
    from etils import epath  # TFDS's own paths: a bucket works as well

    set_name, _, version = name.partition(":")
    place(data_dir)  # says what is wrong with a bucket
    folder = epath.Path(data_dir).expanduser() / set_name
    children = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    versions = [child for child in children if re.fullmatch(r"\d+\.\d+\.\d+", child)]
    matching = [v for v in versions if version in ("", v) and (folder / v / "dataset_info.json").exists()]
    if matching:
        newest = max(matching, key=lambda v: tuple(int(part) for part in v.split(".")))
        return os.fspath(folder / newest)
    if versions and version:
        raise DataError(f"data.name={name!r}: {folder} has the versions {', '.join(sorted(versions))}")
    configs = sorted(c for c in children if any((folder / c).glob("*/dataset_info.json")))
    if configs:
        raise DataError(
            f"data.name={name!r}: the set has configs; write data.name='{set_name}/{configs[0]}'"
            f" or another of {', '.join(configs)}"
        )
    raise DataError(
        f"data.name={name!r}: not prepared in data.path={data_dir!r}; {_how_to_prepare(name, data_dir)}"
    )


def _how_to_prepare(name: str, data_dir: str) -> str:
    return f"run python -m amd_jax.data.prepare --name={name} --data_dir={data_dir}"


def _image_decoders(set_name: str, features: Any, tfds: Any) -> tuple[dict[str, Any] | None, int]:
    """Decoders that leave encoded images encoded, and the number of classes."""
    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = named.get("image"), named.get("label")
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise DataError(f"data.name: {set_name} has no class 'label'; take an image classification set")
    if isinstance(image, tfds.features.Image) and np.dtype(image.np_dtype) == np.uint8:
        return {"image": tfds.decode.SkipDecoding()}, label.num_classes
    if isinstance(image, tfds.features.Tensor) and np.dtype(image.np_dtype) == np.uint8:
        return None, label.num_classes
    raise DataError(f"data.name: {set_name} has no 8-bit 'image'; take an image classification set")
