"""Folders in buckets: `gs://BUCKET/PATH`, wherever a run or weights are written or read.

`place` is the door to them. What it returns for a bucket has the methods of `pathlib.Path`, but a bucket is
no disk: a file cannot be appended to, a folder is there while a file is in it, and renaming copies.
"""

import contextlib
import functools
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from amd_jax.errors import ConfigError, UserError

SCHEME = "gs://"
LOG_IN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
RIGHTS = "roles/storage.objectViewer to read, roles/storage.objectUser and storage.buckets.get to write"

# Where TensorFlow is installed, orbax's paths would use it; they ask once, at the first path of any kind.
os.environ.setdefault("EPATH_USE_TF", "false")


class Stored(NamedTuple):
    """What a bucket says of a file. `md5` is base64, and empty for files that were composed of others."""

    size: int
    md5: str


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is no path of this machine."""
    return "://" in os.fspath(path)


def place(path: str) -> Path:
    """A path on this machine or in a bucket; what follows from it by `/`, `.parent` or `.glob` is there too.

    Raises:
      ConfigError: of a URL: not a bucket's, gcsfs is not installed, or the bucket is not there to be read.
    """
    if not is_url(path):
        return Path(path)
    if not path.startswith(SCHEME) or not _split(path)[0]:
        raise ConfigError(
            f"{path}: of remote storage only Google's buckets, {SCHEME}BUCKET/PATH, are read and written; "
            "mount what is elsewhere and give the folder"
        )
    _check_readable(path)
    from etils import epath

    return cast(Path, epath.Path(path))


def absolute(path: Path) -> Path:
    """From the root on; `Path.absolute` mangles URLs."""
    return path if is_url(path) else path.absolute()


def check_on_disk(option: str, path: str) -> None:
    """Raises ConfigError where `path`, what `option` is set to, is a URL."""
    if is_url(path):
        raise ConfigError(
            f"{option}={path}: this is written to a disk; copy it afterwards (`gcloud storage rsync -r`)"
        )


def check_writable(folder: Path) -> None:
    """Makes and deletes a file in a folder of a bucket.

    Raises:
      ConfigError: that is not allowed.
    """
    files, mark = filesystem(), f"{folder}/.{uuid.uuid4().hex}"
    with told(str(folder)):
        files.call("GET", "b/{}", _split(mark)[0])  # orbax asks for it when it deletes a checkpoint
        files.pipe_file(mark, b"")
        files.rm_file(mark)


def listing(folder: Path) -> dict[str, Stored]:
    """The files at any depth by their names relative to `folder`: one request for a thousand of them."""
    root = str(folder).removeprefix(SCHEME).rstrip("/") + "/"
    found = filesystem().find(root, detail=True)
    return {
        name.removeprefix(root): Stored(info["size"], info.get("md5Hash") or "")
        for name, info in found.items()
    }


@functools.cache
def filesystem() -> Any:
    """gcsfs, on which `place` and orbax's bookkeeping rest; arrays are read and written by tensorstore.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{SCHEME}… needs gcsfs: pip install -r requirements-gcs.txt") from error
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it shows a traceback of what we tell in one line
    # Listings that are kept do not show what another process wrote.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return fsspec.filesystem("gcs")


@functools.cache
def errors() -> tuple[type[Exception], ...]:
    """What reading and writing in a bucket raises."""
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return OSError, ValueError, HttpError, ClientError, GoogleAPIError, GoogleAuthError


def failures(path: Path) -> tuple[type[Exception], ...]:
    """What a write to `path` that goes wrong raises, orbax's errors among it."""
    return errors() if is_url(path) else (OSError, ValueError)


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """What goes wrong inside with a bucket becomes a ConfigError of one line that starts with `where`."""
    try:
        yield
    except errors() as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(f"{where}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What is wrong, and what can be done about it."""
    code, lines = getattr(error, "code", None), str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket; `gcloud storage buckets create` makes one"
    if code == 401:
        return f"not logged in ({lines[-1][:200]}); {LOG_IN}"
    if code == 403 or lines[0].startswith("Forbidden"):
        return f"no permission ({lines[-1][:200]}); it takes {RIGHTS}"
    return f"cannot be read or written ({lines[0][:200]})"


@functools.cache
def _check_readable(url: str) -> None:
    bucket, key = _split(url)
    files = filesystem()
    with told(url):
        files.call("GET", "b/{}/o", bucket, prefix=key, maxResults=1)


def _split(url: str) -> tuple[str, str]:
    """Bucket, and path within it."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    return bucket, key
