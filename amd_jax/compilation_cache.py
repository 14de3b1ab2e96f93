"""Compiled programs are kept from one start to the next: by default in `~/.cache/amd_jax/xla`.

jax's own variables decide otherwise: JAX_COMPILATION_CACHE_DIR names another folder, which is then jax's
business alone, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. jax keeps what took a second to compile;
of several processes of a run only the first one writes, and all may read at once. What several CPU devices
compute together is not kept, whatever these say.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

MAX_BYTES = 2 * 2**30  # what was used least recently goes first; a large step takes 1 to 100 MB
_CONFIG: Any = jax.config  # whose settings it declares where no type checker sees them
_SETTINGS = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size", "jax_enable_compilation_cache")


def folder(name: str) -> Path:
    """Where this package keeps things that can be made again."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "amd_jax" / name


def enable() -> None:
    """From now on what is compiled is kept, and what was kept is not compiled; called before anything is.

    A folder that cannot be written is named in a warning, and stops nothing.
    """
    if not _may_be_kept():
        _CONFIG.update("jax_enable_compilation_cache", False)
    if not _CONFIG.jax_enable_compilation_cache or _CONFIG.jax_compilation_cache_dir:
        return
    here = folder("xla")
    try:
        here.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=here):
            pass
        _sweep(here)
    except (OSError, ImportError) as error:  # jax bounds a cache only where filelock is installed
        logging.warning("what is compiled is not kept: %s cannot be used (%s)", here, error)
        return
    _CONFIG.update("jax_compilation_cache_dir", str(here))
    if _CONFIG.jax_compilation_cache_max_size == -1:
        _CONFIG.update("jax_compilation_cache_max_size", MAX_BYTES)


def _may_be_kept() -> bool:
    """Not what several CPU devices compute together, in one process or in many.

    A program that jax 0.10 has read back no longer says which of two collectives comes first, as one that was
    compiled does: some devices begin with the one, some with the other, and all wait for ever.
    """
    return jax.default_backend() != "cpu" or jax.device_count() == 1


def _sweep(here: Path) -> None:
    """Deletes what a process that was killed has written half: jax would stumble over it at every start.

    jax writes the program, then the time of its last use, under this lock.
    """
    import filelock

    with contextlib.suppress(filelock.Timeout), filelock.FileLock(here / ".lockfile", timeout=10):
        for program in here.glob("*-cache"):
            if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                program.unlink()


@contextlib.contextmanager
def elsewhere(here: Path) -> Iterator[None]:
    """Inside, `here` is the cache, whatever was set; jax forgets what it has compiled on entering."""
    before = {name: getattr(_CONFIG, name) for name in _SETTINGS}
    _set(dict(zip(_SETTINGS, (str(here), -1, _may_be_kept()), strict=True)))
    try:
        yield
    finally:
        _set(before)


def _set(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        _CONFIG.update(name, value)
    compilation_cache.reset_cache()
    jax.clear_caches()
