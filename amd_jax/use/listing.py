"""The files that a command is given as a folder or a list, with their labels if they have any."""

import dataclasses
import os
import zlib

from amd_jax.data.folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_below
from amd_jax.data.manifest_format import read_rows
from amd_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files in a fixed order.

    Attributes:
      root: what `names` start from.
      names: paths.
      labels: a word for each; "" where it has none.
    """

    root: str
    names: list[str]
    labels: list[str]

    def path(self, number: int) -> str:
        """Where a file lies."""
        return os.path.join(self.root, self.names[number])

    @property
    def checksum(self) -> int:
        """Another for other files, labels or another order."""
        return zlib.crc32("\0".join([*self.names, *self.labels]).encode(errors="surrogateescape"))


def listing(data: str, root: str, videos: bool) -> Listing:
    """Files of a folder, whose label is the folder they lie in, or of a list (see data/manifest_format.py).

    Args:
      data: a folder, or a file of lines `path label`.
      root: what the paths of a list start from; empty: the folder of the list.
      videos: whether videos are wanted, or images.

    Raises:
      DataError: there is nothing of the kind.
    """
    if os.path.isdir(data):
        if root:
            raise DataError(
                f"--root={root}: only a list has paths that start from a root, {data} is a folder"
            )
        suffixes = VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
        names = sorted(files_below(data, "", suffixes))
        if not names:
            raise DataError(f"{data}: no {'/'.join(suffixes)} files in it")
        return Listing(data, names, [os.path.dirname(name) for name in names])
    root = root or os.path.dirname(data) or "."
    rows = read_rows(data, root)
    return Listing(root, rows.paths, rows.labels)
