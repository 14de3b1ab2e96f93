"""Whether videos can be read: size, frames, a look at first, middle and last frame, and duplicates."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np

from amd_jax.data.example import Video, VideoFile
from amd_jax.data.folders import frame_files, is_frame
from amd_jax.data.jobs import results
from amd_jax.data.manifest_format import Rows
from amd_jax.data.video import open_video


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a video file or a folder of frames."""

    size: int  # bytes
    frames: int  # 0: it cannot be read
    problem: str = ""  # why


def inspect(path: str) -> Facts:
    """Opens the video and decodes three of its frames; whatever is wrong with it is in the answer."""
    size = 0
    try:
        size = sum(os.path.getsize(file) for file in _files(path))
        if not size:
            return Facts(0, 0, "empty")
        content: Video = frame_files(path) if os.path.isdir(path) else VideoFile(path)
        with open_video(content) as video:
            video.read(np.array([0, video.count // 2, video.count - 1]), 3)
            return Facts(size, int(video.count))
    except FileNotFoundError:
        return Facts(size, 0, "missing")
    except OSError as error:
        return Facts(size, 0, f"unreadable: {' '.join(str(error).split())}")


def _files(path: str) -> Iterator[str]:
    """The file itself, or the frames in a folder."""
    if not os.path.isdir(path):
        yield path
        return
    for name in sorted(os.listdir(path)):
        if is_frame(name):
            yield os.path.join(path, name)


def digest(path: str) -> str:
    """SHA-256 of the file, or of the frames of a folder in their order; empty where it cannot be read."""
    total = hashlib.sha256()
    try:
        for file in _files(path):
            with open(file, "rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
    except OSError:
        return ""
    return total.hexdigest()


def find_bad(
    rows: Rows, root: str, known: Sequence[bool], min_frames: int = 1, jobs: int = 1
) -> list[tuple[str, str]]:
    """What is wrong with the videos of a manifest, as (path, reason) in its order.

    Args:
      known: whether the label of each row is one of the classes.
      min_frames: fewer are too short.
    """
    paths = [os.path.join(root, path) for path in rows.paths]
    facts = results("checked", inspect, paths, jobs)
    copies = _copies(rows.paths, paths, facts, jobs)
    bad = []
    for row, (path, fact) in enumerate(zip(rows.paths, facts, strict=True)):
        reasons = [fact.problem] if fact.problem else []
        if not fact.problem and fact.frames < min_frames:
            reasons.append(f"too short: {fact.frames} frames")
        elif not fact.problem and fact.frames < rows.frames[row]:
            reasons.append(f"fewer frames: {fact.frames}, the list says {rows.frames[row]}")
        if row in copies:
            reasons.append(f"duplicate of {copies[row]}")
        if not known[row]:
            reasons.append(f"unknown label: {rows.labels[row]}")
        if reasons:
            bad.append((path, "; ".join(reasons)))
    return bad


def _copies(names: Sequence[str], paths: Sequence[str], facts: Sequence[Facts], jobs: int) -> dict[int, str]:
    """Rows whose content an earlier row has, with its name; only what is of one size is read for that."""
    of_size = collections.defaultdict(list)
    for row, fact in enumerate(facts):
        if fact.size:
            of_size[fact.size].append(row)
    rows = [row for same in of_size.values() if len(same) > 1 for row in same]
    digests = results("compared", digest, [paths[row] for row in rows], jobs if len(rows) > 1 else 1)
    first: dict[str, int] = {}
    copies = {}
    for row, content in sorted(zip(rows, digests, strict=True)):
        if content and first.setdefault(content, row) != row:
            copies[row] = names[first[content]]
    return copies
