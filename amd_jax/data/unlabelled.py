"""Folders without classes, of which every image or video is taken, at any depth; and which those are."""

import os
from collections.abc import Iterator

from absl import logging

from amd_jax.data.example import Example, Video, VideoFile
from amd_jax.data.folders import (
    FRAMES,
    IMAGE_SUFFIXES,
    IMAGES,
    SPLIT_NAMES,
    VIDEO_SUFFIXES,
    VIDEOS,
    FolderSource,
    Kind,
    Names,
    Split,
    frame_files,
    is_frame,
    kind_of_videos,
    split_folder,
    subfolders,
)
from amd_jax.errors import DataError


class UnlabelledFolder:
    """What lies in one folder, at any depth, ordered by path; there are no classes, and the labels are -1."""

    num_classes = 0
    class_names: tuple[str, ...] = ()

    def __init__(self, folder: str, kind: Kind = IMAGES) -> None:
        self._folder, self._kind = folder, kind
        self._paths = Names(sorted(kind.find(folder, "")))
        if not len(self._paths):
            raise DataError(f"{folder}: no {kind.what} in it")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        return Example(self._kind.content(self.describe(index)), -1)

    def label(self, index: int) -> int:
        return -1

    def describe(self, index: int) -> str:
        return os.path.join(self._folder, self._paths[index])


def folder_source(
    root: str, split: Split, name: str, train_name: str, videos: bool
) -> FolderSource | UnlabelledFolder:
    """The examples in `root/split/class/`; where there are no class folders, or no folder of any split, all.

    Args:
      root: as data.path.
      split: which role they play.
      name: of the split's folder; empty: its usual names.
      train_name: of the training split's folder.
      videos: whether videos are wanted, not images.

    Raises:
      DataError: there is no such folder, or nothing in it.
    """
    try:
        folder = split_folder(root, split, name)
    except DataError as error:
        if split == "eval" or name or _has_splits(root):
            raise
        try:
            return UnlabelledFolder(root, ANY_VIDEOS if videos else IMAGES)
        except DataError as nothing:
            raise DataError(f"{error}; nor are there examples without classes: {nothing}") from error
    kind = _kind(folder) if videos else IMAGES
    if kind is ANY_VIDEOS or not subfolders(folder):
        return UnlabelledFolder(folder, kind)
    _report_loose(folder, kind)
    train = os.path.join(root, train_name)
    if videos and os.path.isdir(train) and _kind(train) is ANY_VIDEOS:
        train_name = os.path.basename(folder)  # no classes there: those of this split are its own
    return FolderSource(root, split, name, train_name, kind)


def videos_below(root: str, inside: str = "") -> Iterator[str]:
    """Paths relative to `root` of all video files and of all folders of frames."""
    with os.scandir(os.path.join(root, inside)) as entries:
        found = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
    if inside and any(is_frame(name) for name, is_folder in found if not is_folder):
        yield inside
        return
    for name, is_folder in found:
        path = os.path.join(inside, name)
        if is_folder:
            yield from videos_below(root, path)
        elif name.lower().endswith(VIDEO_SUFFIXES):
            yield path


def _video(path: str) -> Video:
    return frame_files(path) if os.path.isdir(path) else VideoFile(path)


def _videos(folder: str, inside: str) -> Iterator[str]:
    """As `videos_below`; nothing where the first is a folder of images that are not frames of a video."""
    found = list(videos_below(folder, inside))
    first = os.path.join(folder, found[0]) if found else ""
    if os.path.isdir(first):
        try:
            frames = frame_files(first).count
        except OSError:  # not numbered, or with gaps
            return
        if frames < 2:
            return
        logging.info("%s: its images are taken as the frames of one video", first)
    yield from found


ANY_VIDEOS = Kind(f"{VIDEOS.what} or {FRAMES.what}", _videos, _video)


def _kind(folder: str) -> Kind:
    """What lies in the class folders of `folder`, or `ANY_VIDEOS` where it holds videos without them."""
    try:
        return kind_of_videos(folder)
    except DataError:
        if next(_videos(folder, ""), None) is None:
            raise
    return ANY_VIDEOS


def _has_splits(root: str) -> bool:
    """Whether there is no such folder, or one of a split in it: then not all of it is to train on."""
    usual = {name for names in SPLIT_NAMES.values() for name in names}
    return not os.path.isdir(root) or bool(usual & {*subfolders(root)})


def _report_loose(folder: str, kind: Kind) -> None:
    """Files beside class folders are passed over, which nobody should have to guess."""
    suffixes = IMAGE_SUFFIXES if kind is IMAGES else VIDEO_SUFFIXES
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(suffixes) and not e.name.startswith(".")]
    if names:
        logging.warning(
            "%s: %d files beside the class folders, as %s, are passed over", folder, len(names), min(names)
        )
