"""What every source offers: images or videos, not yet decoded, and most with a label."""

import dataclasses
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video as a file of any container."""

    path: str


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """The bytes of such a file."""

    data: bytes


@dataclasses.dataclass(frozen=True)
class FrameFiles:
    """A video as one image file a frame: `folder/template.format(first)` and those that follow."""

    folder: str
    count: int
    template: str = "img_{:05d}.jpg"
    first: int = 1


@dataclasses.dataclass(frozen=True)
class EncodedFrames:
    """A video as one encoded image a frame."""

    images: tuple[bytes, ...]


Image: TypeAlias = bytes | np.ndarray  # an encoded file, or uint8 pixels [H, W] or [H, W, C]
# Pixels of a video that is in memory are uint8 [T, H, W, C].
Video: TypeAlias = VideoFile | EncodedVideo | FrameFiles | EncodedFrames | np.ndarray


class Example(NamedTuple):
    """One image or video; `label` counts from 0, and is -1 in a source without classes."""

    content: Image | Video
    label: int


class Source(Protocol):
    """Images or videos by index."""

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes); 0: there are no labels."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes by label; empty where they have none."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; raises OSError where it cannot be read."""

    def label(self, index: int) -> int:
        """The label of the example at `index`; it is read for that only where nothing else knows the label.

        A source that knows all of them without reading has them as an attribute as well, `labels` [N].
        Raises OSError where it has to be read and cannot.
        """

    def describe(self, index: int) -> str:
        """The file name or record number, for logs."""
