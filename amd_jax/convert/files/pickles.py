"""PyTorch's files, read without PyTorch and without running anything they hold.

Such a file is a pickle that says which tensors lie where, and the raw numbers. A pickle may name any
function to be called, which is how a hostile one takes over a machine. Here it may name only what is in
`_ALLOWED`, and each of those does nothing but describe data. Formats: torch.save's zip archive (PyTorch 1.6
and later) and the older single stream. Source: torch/serialization.py.
"""

import collections
import io
import math
import os
import pickle
import zipfile
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from amd_jax.convert.files.tensors import Source
from amd_jax.errors import UserError, WeightsError

_TYPES = {  # what PyTorch calls a storage's type
    **{"Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16},
    **{
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    },
}
_STORAGES = {f"{name}Storage": np.dtype(kind) for name, kind in _TYPES.items()}
_DTYPES = [dtype.name for dtype in _STORAGES.values()]
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 64_000_000  # bytes; the pickle of a real checkpoint is some hundred kilobytes
_WRAPPERS = ("model", "module", "state_dict", "model_state_dict", "student", "model_ema", "ema")


# Named tuples, because a pickle can write to the attributes of any object that has a __dict__.
class _Storage(NamedTuple):
    """Raw numbers in the file: which, of what type, and how many."""

    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def build(cls, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> "_Tensor":
        shape, strides = tuple(map(int, shape)), tuple(map(int, strides))
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if not isinstance(storage, _Storage) or offset < 0 or min((*shape, *strides), default=0) < 0:
            raise ValueError("a tensor without a storage")
        if math.prod(shape) > storage.length or (math.prod(shape) and last >= storage.length):
            raise ValueError("a tensor that reaches beyond its storage")
        return cls(storage, offset, shape, strides)

    def array(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor within the bytes that start with its storage.

        Raises:
          ValueError: there are fewer of them.
        """
        dtype = self.storage.dtype
        whole = numbers[: self.storage.length * dtype.itemsize].view(dtype)
        if len(whole) != self.storage.length:
            raise ValueError("it is cut short")
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(whole[self.offset :], self.shape, strides, writeable=False)


class _Inert:
    """Stands for an object that holds no weights; takes whatever it is given and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, *_: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...


_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    **dict.fromkeys(("collections.defaultdict", "collections.Counter"), lambda *_: {}),
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), _Tensor.build),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": tuple,
    **dict.fromkeys(("torch.device", "argparse.Namespace", "pathlib.PosixPath", "pathlib.Path"), _Inert),
    **dict.fromkeys(("numpy.dtype", "numpy.ndarray", "_codecs.encode"), _Inert),
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), _Inert),
    **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), _Inert),
    **dict.fromkeys(("builtins.set", "__builtin__.set"), _Inert),
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **dict.fromkeys(f"torch.{name}" for name in _DTYPES),
}


class _Unpickler(pickle.Unpickler):
    """Refuses every name that is not known to be harmless; remembers the storages it met."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _ALLOWED:
            return _ALLOWED[f"{module}.{name}"]
        raise pickle.UnpicklingError(f"it asks to run {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or (view and view[0] is not None):
            raise pickle.UnpicklingError("it has a kind of storage that is not known here")
        storage = _Storage(str(key), dtype, int(count))
        # Of several views of a storage the largest is what has to be in the file.
        known = self.storages.setdefault(storage.key, storage)
        if storage.length * dtype.itemsize > known.length * known.dtype.itemsize:
            self.storages[storage.key] = storage
        return storage


def read_pickle(path: str) -> Source:
    """Reads a PyTorch file; its numbers stay in the file until somebody touches them.

    Raises:
      WeightsError: not a PyTorch file, damaged, without weights, or one that wants to run code.
    """
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content, offsets = _open_zip(file, path) if is_zip else _open_legacy(file)
        tensors, wrapper, skipped = _state_dict(path, content)
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        arrays = {name: t.array(data[offsets[t.storage.key] :]) for name, t in tensors.items()}
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way at all
        if isinstance(error, pickle.UnpicklingError) and "asks to run" in str(error):
            raise WeightsError(
                f"{path}: refused, {error}. A file of weights holds tensors only; this one could run any "
                "code where it is opened. Re-save it as safetensors on a machine that trusts it"
            ) from error
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise WeightsError(f"{path}: not a whole PyTorch file ({why})") from error
    return Source(path, "PyTorch", arrays, wrapper=wrapper, skipped=skipped)


def _open_zip(file: IO[bytes], path: str) -> tuple[Any, dict[str, int]]:
    """The pickled content, and where in the file each storage starts."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path}: a PyTorch file that is damaged or cut short ({error})") from error
    with archive:
        names = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if any("/code/" in name for name in names) or any(n.endswith("constants.pkl") for n in names):
            raise WeightsError(f"{path}: a TorchScript program, not a file of weights")
        if len(pickles) != 1:
            raise WeightsError(f"{path}: a zip archive, but not one that torch.save wrote")
        root = pickles[0].removesuffix("data.pkl")
        order = names.get(f"{root}byteorder")
        if order is not None and archive.read(order) != b"little":
            raise WeightsError(f"{path}: written on a big-endian machine, which is not supported")
        if names[pickles[0]].file_size > _MAX_PICKLE:
            raise WeightsError(f"{path}: its pickle is too large to be that of a checkpoint")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        content = unpickler.load()
    offsets = {}
    for key, storage in unpickler.storages.items():
        size = storage.length * storage.dtype.itemsize
        info = names.get(f"{root}data/{key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < size:
            raise WeightsError(f"{path}: the numbers of storage {key} are missing or cut short")
        # Local header: 30 bytes, then the name and an extra field, whose lengths are at 26 and 28.
        file.seek(info.header_offset + 26)
        offsets[key] = info.header_offset + 30 + int(np.frombuffer(file.read(4), "<u2").sum())
    return content, offsets


def _open_legacy(file: IO[bytes]) -> tuple[Any, dict[str, int]]:
    """The stream of PyTorch before 1.6: magic, version, system, content, keys, then the storages."""
    magic = _Unpickler(file).load()
    if magic != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("a pickle, but not one that torch.save wrote")
    for _ in range(2):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    content = unpickler.load()
    keys = _Unpickler(file).load()
    offsets = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        offsets[str(key)] = file.tell()
        file.seek(count * unpickler.storages[str(key)].dtype.itemsize, io.SEEK_CUR)
    if file.tell() > os.fstat(file.fileno()).st_size:
        raise EOFError("it is cut short")
    return content, offsets


def _state_dict(path: str, content: Any) -> tuple[dict[str, _Tensor], str, dict[str, str]]:
    """The weights within a checkpoint, the key they were under, and what else there was."""
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds {type(content).__name__.strip('_')}, not named weights")
    wrapper = ""
    if not any(isinstance(v, _Tensor) for v in content.values()):
        found = [k for k in _WRAPPERS if _tensors(content.get(k))]
        if not found:
            keys = ", ".join(sorted(map(str, content))[:8])
            raise WeightsError(f"{path}: no weights under {', '.join(_WRAPPERS)}; it has {keys or 'nothing'}")
        wrapper = found[0]
    weights = content[wrapper] if wrapper else content
    skipped = {f"{k}": "not weights" for k in content if wrapper and k != wrapper}
    skipped |= {k: f"a second set of weights; {wrapper!r} is used" for k in _WRAPPERS if k in skipped}
    tensors = _tensors(weights)
    skipped |= {str(k): "not a tensor" for k in weights if k not in tensors}
    return tensors, wrapper, skipped


def _tensors(content: Any) -> dict[str, _Tensor]:
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, _Tensor)}
