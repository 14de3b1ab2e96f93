"""Checksums of a checkpoint's files: what a disk or a copy damaged is noticed before it is loaded.

The arrays inside orbax's files have no checksums of their own: a changed byte would be loaded as a weight.
"""

import concurrent.futures
import json
import zlib
from pathlib import Path

FILE = "checksums.json"  # in a step's directory: {"params/_METADATA": [bytes, crc32], ...}
CHUNK = 1 << 24
THREADS = 8


def write(folder: Path) -> None:
    """Notes size and CRC-32 of every file in the directories of `folder`.

    Files of `folder` itself are left out: orbax changes them last, and nothing is lost with them.
    """
    files = sorted(p for p in folder.glob("*/**/*") if p.is_file())
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        sums = {
            str(p.relative_to(folder)): found for p, found in zip(files, pool.map(_sum, files), strict=True)
        }
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
        wanted = {str(name): (int(size), int(crc)) for name, (size, crc) in sums.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{FILE} cannot be read ({error})"
    names = [name for name in wanted if name.startswith(f"{part}/" if part else "")]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return next(
            filter(None, pool.map(lambda name: _difference(folder / name, name, wanted[name]), names)), ""
        )


def _difference(path: Path, name: str, wanted: tuple[int, int]) -> str:
    size, crc = wanted
    try:
        if (found := path.stat().st_size) != size:
            return f"{name} has {found} of {size} bytes"
        return "" if _sum(path)[1] == crc else f"{name} has other contents than were written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"


def _sum(path: Path) -> tuple[int, int]:
    size = crc = 0
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc
