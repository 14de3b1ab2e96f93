"""Encoded clips as ArrayRecord files, as `python -m amd_jax.data.prepare_video` writes them.

A set is a folder `root/split/` with `clips-00000-of-00010.array_record` and so on, and `clips.json`, which
knows the classes, the labels of all records and what was left out. A record is a little-endian uint32, the
length of the header that follows: JSON in UTF-8 with `name` (where it came from), `label` and `frames`; then
the video file itself (mp4).
"""

import dataclasses
import json
import os
import struct
from typing import Any

import numpy as np

from amd_jax.buckets import place
from amd_jax.data.example import EncodedVideo, Example
from amd_jax.data.folders import Split, split_folder
from amd_jax.errors import DataError

INDEX = "clips.json"
FORMAT = 1
_LENGTH = struct.Struct("<I")


def shard_name(number: int, shards: int) -> str:
    """File name of shard `number` of `shards`."""
    return f"clips-{number:05d}-of-{shards:05d}.array_record"


def pack(header: dict[str, Any], video: bytes) -> bytes:
    """A record."""
    text = json.dumps(header, ensure_ascii=True).encode()
    return _LENGTH.pack(len(text)) + text + video


def unpack(record: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and video file of a record; raises OSError where it is none."""
    try:
        end = _LENGTH.size + _LENGTH.unpack_from(record)[0]
        header = json.loads(record[_LENGTH.size : end])
    except (struct.error, ValueError) as error:
        raise OSError(f"unreadable record: {error}") from error
    if not isinstance(header, dict) or not record[end:]:
        raise OSError("unreadable record: no clip in it")
    return header, record[end:]


def write_shard(path: str, records: list[bytes]) -> None:
    """Writes the records as one ArrayRecord file; whoever stops halfway leaves nothing of this name.

    Raises:
      OSError: it cannot be written, as on a full disk.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    # Of groups of one a reader takes a single record out; mp4 does not get smaller by compression.
    try:
        writer = ArrayRecordWriter(f"{path}.part", "group_size:1,uncompressed")
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:
        raise OSError(f"{path}: {error}") from error
    os.replace(f"{path}.part", path)


@dataclasses.dataclass(frozen=True)
class _Part:
    """What ArrayRecordDataSource asks of a file, so that it need not open each to count its records."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class ClipRecordSource:
    """The clips of a folder that prepare_video wrote, in the order of the source that they were made from."""

    def __init__(self, root: str, split: Split, name: str = "") -> None:
        """Args: `root` as data.path, `name` of the split's folder (empty: its usual names)."""
        self._folder = split_folder(root, split, name)
        index = _read_index(self._folder)
        self.class_names, self.num_classes = tuple(index["classes"]), int(index["num_classes"])
        shards = index["shards"]
        self.labels = np.concatenate([np.asarray(shard["labels"], np.int32) for shard in shards])
        self._ends = np.cumsum([len(shard["labels"]) for shard in shards])
        self._files = [shard["file"] for shard in shards]
        there = {path.name for path in place(self._folder).iterdir()}
        missing = [file for file in self._files if file not in there]
        if missing:
            raise DataError(
                f"{self._folder}: {len(missing)} of {len(self._files)} files are missing, as {missing[0]};"
                " copy them again"
            )
        if not len(self.labels):
            raise DataError(f"{self._folder}: there is no clip in it")
        self._records = self._open(shards)

    def _open(self, shards: list[dict[str, Any]]) -> Any:
        """The records; files are opened when one of theirs is asked for, and again in another process."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        counts = [(os.path.join(self._folder, shard["file"]), len(shard["labels"])) for shard in shards]
        return ArrayRecordDataSource([_Part(file, 0, n, n) for file, n in counts if n])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        try:
            record = self._records[index]
        except Exception as error:  # what a damaged file raises depends on the layer that notices
            raise OSError(f"unreadable record: {error}") from error
        return Example(EncodedVideo(unpack(record)[1]), self.label(index))

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def describe(self, index: int) -> str:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        start = self._ends[shard - 1] if shard else 0
        return f"{os.path.join(self._folder, self._files[shard])} record {index - start}"


def _read_index(folder: str) -> dict[str, Any]:
    """`clips.json` of a finished set; raises DataError."""
    try:
        index = json.loads((place(folder) / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {INDEX} in it; python -m amd_jax.data.prepare_video writes it when all is done"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {INDEX} cannot be read ({error}); prepare the set again") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{folder}: {INDEX} is not of format {FORMAT}; prepare the set again")
    return index
