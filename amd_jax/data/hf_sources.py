"""Image sets as Hugging Face keeps them: the hub's parquet files, and folders that `save_to_disk` wrote.

Both hold rows of an image (a struct of `bytes` and `path`) and perhaps a label; the schema's metadata, key
`huggingface`, says which column is which and what the classes are called. pyarrow reads them; the `datasets`
library is not needed. Arrow files are mapped into memory, so that a row is read where it lies. Of a parquet
file a whole row group has to be read for a row; the last few are kept.
"""

import collections
import dataclasses
import json
import os
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from amd_jax.data.example import Example
from amd_jax.data.folders import HOLDOUT, SPLIT_NAMES, Split, files_below
from amd_jax.errors import DataError

KEPT_GROUPS = 4  # row groups of parquet files that stay in the memory of a process, at most …
KEPT_BYTES = 2**28  # … and, but for one, so many bytes of them
_USUAL = {"image": ("image", "img"), "label": ("label", "labels")}  # columns where no metadata says it


class HfSource:
    """The images of one split, in the order of its files; without a label column they have no classes."""

    def __init__(self, root: str, split: Split, name: str = "") -> None:
        """Args: `root` as data.path, `name` of the split (empty: its usual names)."""
        if not root or not os.path.isdir(root):
            raise DataError(f"data.path={root!r}: no such folder; it must hold a set of Hugging Face")
        files = _files(root, split, name)
        try:
            self._parts = [(_Parquet if file.endswith(".parquet") else _Arrow)(file) for file in files]
            self._columns = _columns(self._parts[0].schema, files[0])
            self.class_names = self._columns.names
            labels = [part.column(self._columns.label) for part in self._parts if self._columns.label]
        except (ValueError, OSError, KeyError) as error:  # pyarrow's errors are ValueErrors or OSErrors
            raise DataError(f"{root}: cannot be read ({error}); fetch it again") from error
        self._ends = np.cumsum([part.rows for part in self._parts])
        if not self._ends[-1]:
            raise DataError(f"{files[0]}: there is no row in it")
        without = np.full(len(self), -1, np.int32)
        self.labels = _checked(np.concatenate(labels), files[0]) if labels else without
        if self.labels.max() < 0:
            self.class_names = ()
        self.num_classes = len(self.class_names) or int(self.labels.max() + 1)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        part, row = self._place(index)
        try:
            image = self._parts[part].row(row, self._columns.image)
        except Exception as error:  # what damaged bytes raise depends on the layer that notices
            raise OSError(f"unreadable row: {error}") from error
        data, path = (image or {}).get("bytes"), (image or {}).get("path")
        if data is None and path and os.path.isabs(path):
            with open(path, "rb") as file:
                data = file.read()
        if data is None:
            raise OSError("unreadable row: it has no image")
        return Example(data, self.label(index))

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def describe(self, index: int) -> str:
        part, row = self._place(index)
        return f"{self._parts[part].path} row {row}"

    def _place(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, int(index - (self._ends[part - 1] if part else 0))


@dataclasses.dataclass(frozen=True)
class _Columns:
    image: str
    label: str  # empty: there is none
    names: tuple[str, ...]


# Of all files of this process, as a source of many would else hold as many groups as it has files.
_groups: collections.OrderedDict[tuple[str, int], Any] = collections.OrderedDict()
_groups_lock = threading.Lock()


def _size() -> int:
    return sum(values.nbytes for values in _groups.values())


class _Parquet:
    """A parquet file; a row is found in its row group, of which the last few of a process are kept."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self._metadata = pq.read_metadata(path)
        self.schema, self.rows = self._metadata.schema.to_arrow_schema(), self._metadata.num_rows
        groups = range(self._metadata.num_row_groups)
        self._ends = np.cumsum([self._metadata.row_group(i).num_rows for i in groups])

    def column(self, name: str) -> np.ndarray:
        """All of a column, which is read alone."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path, columns=[name])[name].to_numpy()

    def row(self, index: int, name: str) -> Any:
        """The value of a column in one row."""
        group = int(np.searchsorted(self._ends, index, side="right"))
        values = self._group(group, name)
        return values[index - (int(self._ends[group - 1]) if group else 0)].as_py()

    def _group(self, group: int, name: str) -> Any:
        import pyarrow.parquet as pq

        key = (self.path, group)
        with _groups_lock:
            if key in _groups:
                _groups.move_to_end(key)
                return _groups[key]
        file = pq.ParquetFile(self.path, metadata=self._metadata, memory_map=True)
        with file:
            values = file.read_row_group(group, columns=[name], use_threads=False)[name]
        with _groups_lock:
            _groups[key] = values
            while len(_groups) > 1 and (len(_groups) > KEPT_GROUPS or _size() > KEPT_BYTES):
                _groups.popitem(last=False)
        return values


class _Arrow:
    """An Arrow stream file, mapped into memory in each process that reads of it."""

    def __init__(self, path: str) -> None:
        self.path, self._mapped = path, self._map(path)
        self.schema, self.rows = self._mapped.schema, self._mapped.num_rows

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    @staticmethod
    def _map(path: str) -> Any:
        import pyarrow as pa

        with pa.memory_map(path) as file:
            return pa.ipc.open_stream(file).read_all()

    def column(self, name: str) -> np.ndarray:
        """All of a column."""
        return self._mapped[name].to_numpy()

    def row(self, index: int, name: str) -> Any:
        """The value of a column in one row."""
        return self._mapped[name][index].as_py()


def _files(root: str, split: Split, name: str) -> list[str]:
    """The files of a split, in order; raises DataError where there are none, or not all of them."""
    names = (name,) if name else SPLIT_NAMES[split]
    saved = sorted(files_below(root, "", ("state.json",)))
    if saved:
        by_split = {os.path.basename(os.path.dirname(path)): [path] for path in saved}
        if saved == ["state.json"]:  # a set by itself, which has no splits
            by_split = {"train": saved}
    else:
        by_split = collections.defaultdict(list)
        for path in sorted(files_below(root, "", (".parquet",))):
            by_split[_split_of(path)].append(path)
    chosen = next((by_split[name] for name in names if name in by_split), None)
    if chosen is None:
        there = ", ".join(sorted(by_split)) or "neither parquet files nor a folder of save_to_disk"
        hint = HOLDOUT if split == "eval" else ""
        raise DataError(f"data.path={root!r}: no split {' or '.join(names)} in it, but {there}{hint}")
    if saved:
        return _saved(os.path.join(root, os.path.dirname(chosen[0])))
    folders = sorted({os.path.dirname(path) for path in chosen})
    if len(folders) > 1:
        raise DataError(f"data.path={root!r}: several sets, {', '.join(folders)}; name the folder of one")
    whole = re.search(r"-of-(\d+)\.parquet$", chosen[0])
    if whole and int(whole[1]) != len(chosen):
        raise DataError(f"{root}: {len(chosen)} of {int(whole[1])} files like {chosen[0]}; fetch the others")
    return [os.path.join(root, path) for path in chosen]


def _split_of(path: str) -> str:
    """`train` of data/train-00000-of-00004.parquet, train.parquet and default/train/0000.parquet."""
    stem = os.path.basename(path).removesuffix(".parquet")
    return os.path.basename(os.path.dirname(path)) if stem.isdigit() else re.split(r"-\d", stem)[0]


def _saved(folder: str) -> list[str]:
    try:
        with open(os.path.join(folder, "state.json"), encoding="utf-8") as file:
            state = json.load(file)
        names = [entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: state.json cannot be read ({error}); save the set again") from error
    if state.get("_indices_data_files"):
        raise DataError(f"{folder}: a selection of rows; save it with dataset.flatten_indices()")
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing or not names:
        raise DataError(f"{folder}: {len(missing)} of {len(names)} files are missing; copy them again")
    return [os.path.join(folder, name) for name in names]


def _columns(schema: Any, path: str) -> _Columns:
    """Which columns hold image and label; raises DataError where none holds images."""
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = said.get("info", {}).get("features") or {}
    kinds = {name: value.get("_type") for name, value in features.items() if isinstance(value, dict)}
    image = _called(schema.names, kinds, "image", "Image")
    label = _called(schema.names, kinds, "label", "ClassLabel")
    if not image or not _holds_bytes(schema.field(image).type):
        raise DataError(f"{path}: no column of images; it has {', '.join(schema.names)}")
    return _Columns(image, label, tuple(features.get(label, {}).get("names") or ()) if label else ())


def _called(there: Sequence[str], kinds: dict[str, Any], what: str, kind: str) -> str:
    stated = [name for name in there if kinds.get(name) == kind]
    return next(iter([*stated, *(name for name in _USUAL[what] if name in there)]), "")


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _checked(labels: np.ndarray, path: str) -> np.ndarray:
    """As int32; raises DataError where they are not numbers from 0. Test sets of the hub are full of -1."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels are {labels.dtype}, not whole numbers, or some are missing")
    if labels.min() < 0:
        if (labels == -1).all():
            return labels.astype(np.int32)
        raise DataError(f"{path}: a label is {labels.min()}; they count from 0")
    return labels.astype(np.int32)
