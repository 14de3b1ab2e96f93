"""Writing safetensors one tensor at a time, whole or not at all."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from amd_jax.config import ConfigError
from amd_jax.convert.readers import DTYPES, Info

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Writer:
    """A safetensors file whose header is known and whose tensors arrive in any order, also in layers."""

    def __init__(self, path: Path, infos: Mapping[str, Info], metadata: Mapping[str, str]) -> None:
        header: dict[str, Any] = {"__metadata__": dict(metadata)}
        self._infos = dict(infos)
        self._offsets: dict[str, int] = {}
        self._left: dict[str, int] = {}
        end = 0
        # Larger types first, so that every tensor is aligned to its own type, as the library does it.
        for name, info in sorted(infos.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
            size = math.prod(info.shape) * info.dtype.itemsize
            offsets = [end, end + size]
            header[name] = {"dtype": _NAMES[info.dtype], "shape": list(info.shape), "data_offsets": offsets}
            self._offsets[name], self._left[name] = end, size
            end += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._file = open(path, "wb")  # noqa: SIM115
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._start + end)

    def put(self, name: str, layer: int | None, array: np.ndarray) -> None:
        """Write a tensor, or one index of its first axis, in the type that the header announces."""
        info = self._infos[name]
        shape = info.shape if layer is None else info.shape[1:]
        if array.shape != shape:
            raise ValueError(f"{name} is {array.shape}, announced was {shape}")
        data = np.ascontiguousarray(array, info.dtype).reshape(-1).view(np.uint8)
        self._file.seek(self._start + self._offsets[name] + (layer or 0) * data.nbytes)
        self._file.write(data.data)
        self._left[name] -= data.nbytes

    def close(self) -> None:
        """Ends the file.

        Raises:
          ValueError: a tensor did not arrive.
        """
        self._file.close()
        if missing := [name for name, left in self._left.items() if left]:
            raise ValueError(f"not written: {missing[:4]}")

    def abandon(self) -> None:
        """Ends the file without a check."""
        self._file.close()


@contextlib.contextmanager
def folder(out: str) -> Iterator[Path]:
    """A new folder beside `out`; its files go to `out` when all of them are written, or none does.

    Raises:
      ConfigError: `out` cannot be written.
    """
    target = Path(out)
    if target.exists() and not target.is_dir():
        raise ConfigError(f"--out={out}: there is a file of that name; give a folder")
    temporary = target.with_name(f".{target.name or 'out'}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        target.mkdir(exist_ok=True)
        # The weights come last: whoever finds them finds the description too.
        for path in sorted(temporary.iterdir(), key=lambda p: p.suffix == ".safetensors"):
            os.replace(path, target / path.name)
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot write there ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            for path in temporary.iterdir():
                path.unlink()
            temporary.rmdir()


@contextlib.contextmanager
def writing(path: Path, infos: Mapping[str, Info], metadata: Mapping[str, str]) -> Iterator[Writer]:
    """A `Writer` that is checked for completeness if nothing went wrong."""
    writer = Writer(path, infos, metadata)
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
    writer.close()
