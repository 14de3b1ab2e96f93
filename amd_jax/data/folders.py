"""Folders of classes: image files, video files, or videos as one folder of images each."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np

from amd_jax.buckets import place
from amd_jax.data.example import Example, FrameFiles, Image, Video, VideoFile
from amd_jax.errors import DataError

Split = Literal["train", "eval"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov")
# The usual names of what plays a role; what is written takes the first.
SPLIT_NAMES = {"train": ("train",), "eval": ("val", "validation", "test")}


# What else evaluates, for messages.
HOLDOUT = ", or hold a part of the training examples out: --config.data.holdout=0.1"


class Names:
    """Many strings as one bytes object, which is sent to a process in no time: 40 MB for ImageNet's paths."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]])


@dataclasses.dataclass(frozen=True)
class Kind:
    """What an example of a folder is."""

    what: str  # what lies in a class folder, for messages
    find: Callable[[str, str], Iterator[str]]  # the paths relative to a folder of all below `folder/inside`
    content: Callable[[str], Image | Video]  # of such a path; raises OSError


def files_below(folder: str, inside: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths relative to `folder` of the files with one of `suffixes` at any depth below `folder/inside`.

    Names that start with a dot are passed over.
    """
    with os.scandir(os.path.join(folder, inside)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name.lower().endswith(suffixes):
                yield path
            elif entry.is_dir():
                yield from files_below(folder, path, suffixes)


def _images(folder: str, inside: str) -> Iterator[str]:
    return files_below(folder, inside, IMAGE_SUFFIXES)


def _videos(folder: str, inside: str) -> Iterator[str]:
    return files_below(folder, inside, VIDEO_SUFFIXES)


def _folders(folder: str, inside: str) -> Iterator[str]:
    return (f"{inside}/{name}" for name in subfolders(os.path.join(folder, inside)))


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def is_frame(name: str) -> bool:
    """Whether a file of this name counts as a frame."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def frame_files(folder: str) -> FrameFiles:
    """The frames that lie in `folder`, image files that are numbered without a gap.

    Raises:
      OSError: there are none, or they are not numbered so.
    """
    names = sorted(name for name in os.listdir(folder) if is_frame(name))
    if not names:
        raise OSError(f"{folder}: no {'/'.join(IMAGE_SUFFIXES)} files in it")
    matches = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name) for name in (names[0], names[-1])]
    if not (matches[0] and matches[1]):
        raise OSError(f"{folder}: {names[0]} is not numbered")
    before, digits, suffix = matches[0].groups()
    # Numbers of different lengths are not padded: 9.jpg, 10.jpg.
    padded = len({len(name) for name in names}) == 1
    number = f"{{:0{len(digits)}d}}" if padded else "{:d}"
    template = before.replace("{", "{{").replace("}", "}}") + number + suffix
    first = int(digits)
    if not padded:
        first = min((int(m[1]) for name in names if (m := re.search(r"(\d+)\.\w+$", name))), default=first)
    missing = {template.format(first + i) for i in range(len(names))} - set(names)
    if missing:
        raise OSError(f"{folder}: {len(names)} images, of which {sorted(missing)[0]} is missing")
    return FrameFiles(folder, len(names), template, first)


IMAGES = Kind(f"{'/'.join(IMAGE_SUFFIXES)} files", _images, _bytes)
VIDEOS = Kind(f"{'/'.join(VIDEO_SUFFIXES)} files", _videos, VideoFile)
FRAMES = Kind("folders of frames", _folders, frame_files)


class FolderSource:
    """Examples in one folder per class, `root/split/class/**`, ordered by class, then by path.

    Classes are the folder names of the training split in sorted order, in evaluation too, so that labels
    agree; a set without a training split is numbered by its own folders. Names that start with a dot are
    passed over.
    """

    def __init__(
        self, root: str, split: Split, name: str = "", train_name: str = "train", kind: Kind = IMAGES
    ) -> None:
        """Args: `root` as data.path, `name` of the split's folder (empty: its usual names)."""
        self._kind = kind
        self._folder = split_folder(root, split, name)
        own = subfolders(self._folder)
        if not own:
            raise DataError(
                f"{self._folder}: no class folders; {kind.what} must lie in"
                f" {os.path.basename(self._folder)}/<class>/"
            )
        train = os.path.join(root, train_name)
        self.class_names = tuple((subfolders(train) if os.path.isdir(train) else []) or own)
        self.num_classes = len(self.class_names)
        unknown = sorted(set(own) - set(self.class_names))
        if unknown:
            raise DataError(
                f"{self._folder}: class {unknown[0]!r} (and {len(unknown) - 1} others) is not in {train};"
                " rename or remove it"
            )
        self._paths, self.labels = self._find(set(own), every_class=split == "train")

    def _find(self, present: set[str], every_class: bool) -> tuple[Names, np.ndarray]:
        """The paths, and the label of each, int32 [N]."""
        paths: list[str] = []
        labels: list[np.ndarray] = []
        for label, class_name in enumerate(self.class_names):
            files = sorted(self._kind.find(self._folder, class_name)) if class_name in present else []
            if not files and every_class:
                raise DataError(
                    f"{os.path.join(self._folder, class_name)}: no {self._kind.what};"
                    " fill the folder or remove it"
                )
            paths.extend(files)
            labels.append(np.full(len(files), label, np.int32))
        if not paths:
            raise DataError(f"{self._folder}: no {self._kind.what} in its class folders")
        return Names(paths), np.concatenate(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return Example(self._kind.content(self.describe(index)), self.label(index))

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def describe(self, index: int) -> str:
        return os.path.join(self._folder, self._paths[index])


def kind_of_videos(folder: str) -> Kind:
    """Whether the class folders of `folder` hold video files or folders of frames: what comes first says it.

    Raises:
      DataError: neither.
    """
    for class_name in subfolders(folder):
        if next(_videos(folder, class_name), None):
            return VIDEOS
        if next(_folders(folder, class_name), None):
            return FRAMES
    raise DataError(
        f"{folder}: no videos; {VIDEOS.what} must lie in <class>/, or frames as images in <class>/<video>/"
        " (images, not videos: data.frames=1)"
    )


def split_folder(root: str, split: Split, name: str = "") -> str:
    """The folder `root/name`, or the one of the split's usual names that is there.

    Raises:
      DataError: there is none.
    """
    names = (name,) if name else SPLIT_NAMES[split]
    if not root or not place(root).is_dir():
        raise DataError(f"data.path={root!r}: no such folder; it must hold {names[0]}/")
    for candidate in names:
        if place(os.path.join(root, candidate)).is_dir():
            return os.path.join(root, candidate)
    raise DataError(
        f"data.path={root!r}: no folder {' or '.join(names)} in it; make it or set data.{split}_split"
        + (HOLDOUT if split == "eval" else "")
    )


def subfolders(folder: str) -> list[str]:
    """Their names, sorted; those that start with a dot are passed over."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
