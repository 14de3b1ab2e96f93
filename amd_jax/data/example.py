"""What every source of labelled images offers."""

from typing import NamedTuple, Protocol

import numpy as np


class Example(NamedTuple):
    """One labelled image: an encoded file, or uint8 pixels [H, W] or [H, W, C]; `label` counts from 0."""

    image: bytes | np.ndarray
    label: int


class Source(Protocol):
    """Labelled images by index."""

    @property
    def num_classes(self) -> int:
        """Labels are in [0, num_classes)."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes by label; empty where they have none."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; raises OSError where it cannot be read."""

    def label(self, index: int) -> int:
        """The label of the example at `index`; it is read for that only where nothing else knows the label.

        Raises OSError where it has to be read and cannot.
        """

    def describe(self, index: int) -> str:
        """The file name or record number, for logs."""
