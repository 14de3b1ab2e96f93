"""Named tensors: what every reader returns, and safetensors in and out."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows bfloat16 by it
import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from amd_jax.buckets import filesystem, is_url, place, told
from amd_jax.errors import WeightsError

METADATA_KEY = "amd_jax"  # our description of the weights, as JSON
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights from somewhere.

    Attributes:
      path: as the user gave it.
      what: the container, in words.
      arrays: name to numbers.
      metadata: the header's strings (safetensors).
      config: config.json of a Hugging Face folder; empty otherwise.
      run: the config of a run of ours.
      step: of the run's checkpoint.
      wrapper: under which key of a PyTorch checkpoint the weights were.
      skipped: what else is in the file, such as an optimiser, name to reason.
    """

    path: str
    what: str
    arrays: Arrays
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    run: ConfigDict | None = None
    step: int = 0
    wrapper: str = ""
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


def read_safetensors(path: str) -> Source:
    """Reads a safetensors file.

    Raises:
      WeightsError: not a safetensors file, or damaged.
    """
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Source(path, "safetensors", arrays, dict(file.metadata() or {}))


def read_metadata(path: str) -> dict[str, str]:
    """Reads the strings in the header of a safetensors file.

    Raises:
      WeightsError: not a safetensors file, or damaged.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        with safe_open(path, "np") as file:
            yield file
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: not a whole safetensors file ({why})") from error


def write_safetensors(path: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, which whoever may read its folder may read; the library's are private."""
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path, dict(metadata))
    path.chmod(path.parent.stat().st_mode & 0o666)


@contextlib.contextmanager
def folder(out: str) -> Iterator[Path]:
    """A new folder beside `out`; its files go to `out` when all of them are written, or none does.

    Raises:
      WeightsError: `out` cannot be written.
      ConfigError: nor can it in a bucket.
    """
    if is_url(out):
        place(out)  # is it there?
        with tempfile.TemporaryDirectory() as written:
            yield Path(written)
            with told(f"--out={out}"):
                for path in _weights_last(Path(written)):
                    filesystem().put_file(str(path), f"{out.rstrip('/')}/{path.name}")
        return
    target = Path(out)
    if target.exists() and not target.is_dir():
        raise WeightsError(f"--out={out}: there is a file of that name; give a folder")
    temporary = target.with_name(f".{target.name or 'out'}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        target.mkdir(exist_ok=True)
        for path in _weights_last(temporary):
            os.replace(path, target / path.name)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise WeightsError(f"--out={out}: cannot write there ({why})") from error
    finally:
        with contextlib.suppress(OSError):
            for path in temporary.iterdir():
                path.unlink()
            temporary.rmdir()


def _weights_last(folder: Path) -> list[Path]:
    """Whoever finds the weights, or a program, finds the description too."""
    last = (".safetensors", ".npz", ".onnx", ".stablehlo")
    return sorted(folder.iterdir(), key=lambda p: (p.suffix in last, p.name))
