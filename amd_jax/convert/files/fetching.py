"""Weights in a bucket, brought to this machine: they are read from many places of a file."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from amd_jax import buckets
from amd_jax.errors import WeightsError


def fetch(path: Path, suffixes: Collection[str], beside: Collection[str]) -> Path:
    """A copy of a file and what of `beside` lies there too, or of the weights and JSON files of a folder.

    It has the same name and stays until the process ends. A folder that has its weights as safetensors and in
    another form is copied without the other.

    Raises:
      WeightsError: nothing of the kind is there.
      ConfigError: it cannot be copied.
    """
    with buckets.told(str(path)):
        if path.is_dir():
            folder = path
            found = [p.name for p in path.iterdir() if p.suffix in suffixes]
            safe = [name for name in found if name.endswith(".safetensors")]
            names = (safe or found) and [*(safe or found), *(p.name for p in path.glob("*.json"))]
        else:
            folder = path.parent
            names = [name for name in (path.name, *beside) if (folder / name).exists()]
            names = names if path.name in names else []
        if not names:
            raise WeightsError(f"{path}: no such file, and no folder with weights in it")
        here = _temporary() / path.name if folder == path else _temporary()
        here.mkdir(exist_ok=True)
        buckets.filesystem().get([f"{folder}/{name}" for name in names], [str(here / name) for name in names])
    return here if folder == path else here / path.name


def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="amd_jax_")
    atexit.register(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    return Path(folder)
