"""Checksums of a checkpoint's files: what a disk or a copy damaged is noticed before it is loaded.

The arrays inside orbax's files have no checksums of their own: a changed byte would be loaded as a weight.
A bucket keeps an MD5 of each file, so there one listing is enough and nothing is read. (It keeps a CRC-32C as
well. But most of orbax's files end with their own, and all such files have the same one.)
"""

import base64
import concurrent.futures
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

from amd_jax.buckets import Stored, is_url, listing

FILE = "checksums.json"  # in a step's directory: {"params/_METADATA": [bytes, crc32 or "MD5 in base64"], ...}
CHUNK = 1 << 24
THREADS = 8

Sum = int | str


def write(folder: Path) -> None:
    """Notes size and CRC-32, or in a bucket MD5, of every file in the directories of `folder`.

    Files of `folder` itself are left out: orbax changes them last, and nothing is lost with them.
    """
    files = {name: stored for name, stored in sorted(_files(folder).items()) if "/" in name}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: files[name].md5 or _checksum(folder / name, 0), files)
        sums = {name: (files[name].size, kept) for name, kept in zip(files, found, strict=True)}
    (folder / FILE).write_text(json.dumps(sums, indent=1))


def exist(folder: Path) -> bool:
    """Whether the checkpoint has checksums; those of older versions have none."""
    return (folder / FILE).is_file()


def damage(folder: Path, part: str = "") -> str:
    """The first damaged file and what is wrong with it; "" where all are whole or nothing is known of them.

    Args:
      folder: of a step.
      part: look only at this directory of it.
    """
    if not exist(folder):
        return ""
    try:
        sums = json.loads((folder / FILE).read_text())
        wanted = {str(name): (int(size), _checked(kept)) for name, (size, kept) in sums.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{FILE} cannot be read ({error})"
    names = [name for name in wanted if name.startswith(f"{part}/" if part else "")]
    files = _files(folder)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: _difference(folder, name, wanted[name], files.get(name)), names)
        return next(filter(None, found), "")


def _checked(kept: Any) -> Sum:
    return kept if isinstance(kept, str) else int(kept)


def _files(folder: Path) -> dict[str, Stored]:
    """All files at any depth by their names; on a disk without an MD5."""
    if is_url(folder):
        return listing(folder)
    files = (p for p in folder.glob("**/*") if p.is_file())
    return {str(p.relative_to(folder)): Stored(p.stat().st_size, "") for p in files}


def _difference(folder: Path, name: str, wanted: tuple[int, Sum], stored: Stored | None) -> str:
    size, kept = wanted
    if stored is None:
        return f"{name} is missing"
    if stored.size != size:
        return f"{name} has {stored.size} of {size} bytes"
    try:
        found = (isinstance(kept, str) and stored.md5) or _checksum(folder / name, kept)
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return "" if found == kept else f"{name} has other contents than were written"


def _checksum(path: Path, like: Sum) -> Sum:
    """Of the kind of `like`: a checkpoint may have been copied out of a bucket, or into one."""
    crc, md5 = 0, hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            if isinstance(like, str):
                md5.update(block)
            else:
                crc = zlib.crc32(block, crc)
    return base64.b64encode(md5.digest()).decode() if isinstance(like, str) else crc
