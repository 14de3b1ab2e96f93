"""Tensors on disk, read one at a time: what every reader returns, and the reader of safetensors.

Nothing here maps a file into memory: pages of a map count as the process's own, and reading one tensor
after the other keeps a conversion close to the size of its largest tensor.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from amd_jax.config import ConfigError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
METADATA_KEY = "amd_jax"  # our description of the weights, as JSON
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library


class Info(NamedTuple):
    """What is known of a tensor without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights somewhere, not yet read.

    Attributes:
      path: as the user gave it.
      what: the container, in words.
      infos: name to shape and type.
      fetch: reads one tensor, or only one index of its first axis.
      metadata: the header's strings (safetensors).
      config: config.json of a Hugging Face folder; empty otherwise.
      wrapper: under which key of a PyTorch checkpoint the weights were.
      skipped: what else is in the file, such as an optimiser, name to reason.
    """

    path: str
    what: str
    infos: dict[str, Info]
    fetch: Callable[[str, int | None], np.ndarray]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    wrapper: str = ""
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    def renamed(self, names: dict[str, str]) -> "Source":
        """The same tensors under other names; `names` maps new to old ones."""
        infos = {new: self.infos[old] for new, old in names.items()}
        return dataclasses.replace(
            self, infos=infos, fetch=lambda name, layer: self.fetch(names[name], layer)
        )


def read_at(path: str, offset: int, size: int) -> bytearray:
    """`size` bytes of a file.

    Raises:
      ConfigError: the file is shorter than that.
    """
    out = bytearray(size)
    with open(path, "rb") as file:
        file.seek(offset)
        if file.readinto(out) != size:
            raise ConfigError(f"{path}: the file is cut short")
    return out


def read_array(path: str, offset: int, info: Info, layer: int | None = None) -> np.ndarray:
    """A C-ordered array, or one index of its first axis, from a place in a file."""
    shape = info.shape
    if layer is not None:
        shape = shape[1:]
        offset += layer * math.prod(shape) * info.dtype.itemsize
    data = read_at(path, offset, math.prod(shape) * info.dtype.itemsize)
    return np.frombuffer(data, info.dtype).reshape(shape)


def open_safetensors(path: str) -> Source:
    """Opens a safetensors file: only its header is read.

    Raises:
      ConfigError: not a safetensors file, or damaged.
    """

    def bad(why: str) -> ConfigError:
        return ConfigError(f"{path}: not a whole safetensors file ({why})")

    total = os.path.getsize(path)
    if total < 8:
        raise bad(f"it has {total} bytes")
    length = int.from_bytes(read_at(path, 0, 8), "little")
    if not 2 <= length <= min(total - 8, _MAX_HEADER):
        raise bad("it ends within its header, or has none")
    try:
        header = json.loads(bytes(read_at(path, 8, length)))
        metadata = header.pop("__metadata__", {})
        infos, spans = {}, {}
        for name, entry in header.items():
            infos[name] = Info(tuple(map(int, entry["shape"])), DTYPES[entry["dtype"]])
            spans[name] = tuple(map(int, entry["data_offsets"]))
        if not all(isinstance(v, str) for v in dict(metadata).values()):
            raise bad("its metadata is not text")
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad(f"its header is not readable: {type(error).__name__} {error}"[:200]) from error

    at = 0  # tensors lie one after the other, without gaps or overlaps
    for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1]):
        size = math.prod(infos[name].shape) * infos[name].dtype.itemsize
        if start != at or stop - start != size or min(infos[name].shape, default=0) < 0:
            raise bad(f"the header places {name} wrongly")
        at = stop
    if 8 + length + at != total:
        raise bad(f"{8 + length + at} bytes are announced, {total} are there")

    def fetch(name: str, layer: int | None = None) -> np.ndarray:
        return read_array(path, 8 + length + spans[name][0], infos[name], layer)

    return Source(path, "safetensors", infos, fetch, metadata=dict(metadata))


def open_arrays(path: str, what: str, arrays: dict[str, np.ndarray]) -> Source:
    """Arrays in memory as a source."""
    infos = {name: Info(array.shape, array.dtype) for name, array in arrays.items()}

    def fetch(name: str, layer: int | None = None) -> np.ndarray:
        return arrays[name] if layer is None else arrays[name][layer]

    return Source(path, what, infos, fetch)


def merge(path: str, what: str, parts: list[Source]) -> Source:
    """Several files that together hold one set of weights.

    Raises:
      ConfigError: two of them hold the same name.
    """
    home: dict[str, Source] = {}
    for part in parts:
        for name in part.infos:
            if name in home:
                raise ConfigError(f"{path}: {name} is in two of its files")
            home[name] = part
    infos = {name: part.infos[name] for name, part in home.items()}
    return Source(path, what, infos, lambda name, layer: home[name].fetch(name, layer))
