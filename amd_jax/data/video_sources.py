"""Videos by a list: a manifest names the files or the folders of frames, and their labels."""

import dataclasses
import os

import numpy as np
from absl import logging

from amd_jax.data.class_lists import classes_beside, classes_of, label_numbers
from amd_jax.data.example import Example, FrameFiles, Video, VideoFile
from amd_jax.data.folders import HOLDOUT, SPLIT_NAMES, Names, Split, frame_files
from amd_jax.data.manifest_format import Rows, read_rows
from amd_jax.errors import DataError

SUFFIXES = (".txt", ".csv", ".tsv")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A list of videos with what its labels mean."""

    rows: Rows
    labels: np.ndarray  # int32 [N]; -1: no such class
    class_names: tuple[str, ...]  # empty where classes have none
    num_classes: int

    def describe(self) -> str:
        """One line: file, columns, classes and number of videos."""
        absent = self.num_classes > 1 and bool(len(self.labels)) and not (self.labels == 0).any()
        hint = "; none of class 0: do the labels count from 1?" if absent and not self.class_names else ""
        return (
            f"{os.path.basename(self.rows.file)}: {self.rows.describe()}; {self.num_classes} classes;"
            f" {len(self.labels):,} videos{hint}"
        )


def manifest_file(root: str, split: Split, name: str = "") -> str:
    """The manifest `name`, below `root` or as a path by itself; without a name the usual ones below `root`.

    Raises:
      DataError: it is not there.
    """
    if not root or not os.path.isdir(root):
        raise DataError(f"data.path={root!r}: no such folder; it is where the paths of the manifest start")
    usual = [usual + suffix for usual in SPLIT_NAMES[split] for suffix in SUFFIXES]
    candidates = [os.path.join(root, name), name] if name else [os.path.join(root, usual) for usual in usual]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    if name:
        raise DataError(f"data.{split}_split={name!r}: no such file, in data.path={root!r} or by itself")
    names = " or ".join(f"{name}.txt" for name in SPLIT_NAMES[split])
    raise DataError(
        f"data.path={root!r}: no {names} (.csv, .tsv) in it;"
        f" set data.{split}_split to the manifest, or make one: python -m amd_jax.data.manifest build"
        + (HOLDOUT if split == "eval" else "")
    )


def training_list(root: str, split: Split, name: str = "") -> str:
    """The list `name` that gives the classes of `split` their numbers; empty: that of `split` itself.

    Raises:
      DataError: `name` is not there. An evaluation without a training list is numbered by itself.
    """
    if split == "train":
        return ""
    try:
        return manifest_file(root, "train", name)
    except DataError:
        if name:
            raise
        return ""


def read_manifest(file: str, root: str, train: str = "") -> Manifest:
    """Reads `file`; classes are those of `classes.txt` beside it or in `root`, else of the list `train`.

    Raises:
      DataError: one of the files is not as it should be. Labels without a class are no error.
    """
    rows = read_rows(file, root)
    names = classes_beside(os.path.dirname(file), root)
    if names:
        classes = len(names)
    else:
        of = (
            rows if not train or os.path.realpath(train) == os.path.realpath(file) else read_rows(train, root)
        )
        names, classes = classes_of(of.labels)
    return Manifest(rows, label_numbers(rows.labels, names, classes), names, classes)


class ManifestSource:
    """The videos of a manifest in its order. Nothing is opened but the list and what its first lines name."""

    def __init__(self, root: str, split: Split, name: str = "", train_name: str = "") -> None:
        """Args: `root` as data.path, `name` of the manifest (empty: its usual names), `train_name` too."""
        file = manifest_file(root, split, name)
        manifest = read_manifest(file, root, training_list(root, split, train_name))
        if len(wrong := np.flatnonzero(manifest.labels < 0)):
            row = int(wrong[0])
            raise DataError(
                f"{file} line {manifest.rows.lines[row]}: label {manifest.rows.labels[row]!r} (and"
                f" {len(wrong) - 1} others) is none of {manifest.num_classes} classes"
            )
        logging.info("%s", manifest.describe())
        self._root = root
        self.class_names, self.num_classes = manifest.class_names, manifest.num_classes
        self._paths, self.labels = Names(manifest.rows.paths), manifest.labels
        self._frames = manifest.rows.frames
        self._folders = manifest.rows.folders
        self._numbering = _common_numbering(root, manifest.rows) if self._folders else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return Example(self._content(index), self.label(index))

    def _content(self, index: int) -> Video:
        path, count = self.describe(index), int(self._frames[index])
        if not self._folders:
            if not os.path.exists(path):
                raise FileNotFoundError(f"{path}: no such file")
            return VideoFile(path)
        if count and self._numbering:
            return FrameFiles(path, count, *self._numbering)
        return frame_files(path)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def describe(self, index: int) -> str:
        return os.path.join(self._root, self._paths[index])


def _common_numbering(root: str, rows: Rows, sample: int = 8) -> tuple[str, int] | None:
    """Template and first number of the frames where the first folders agree: others need not be listed."""
    found = set()
    for path in rows.paths:
        try:
            frames = frame_files(os.path.join(root, path))
        except OSError:  # missing, or with gaps: whoever reads it says so
            continue
        found.add((frames.template, frames.first))
        if len(found) > 1 or (sample := sample - 1) <= 0:
            break
    return found.pop() if len(found) == 1 else None
