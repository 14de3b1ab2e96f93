"""The official annotation files of video sets: which videos are of which class."""

import csv
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from amd_jax.data.class_lists import read_classes
from amd_jax.errors import DataError


class Wanted(NamedTuple):
    """A video by the name of its file without suffix (or of its folder of frames), and its class."""

    stem: str
    class_name: str


class Annotations(NamedTuple):
    """The videos of a split, and all classes in the order of their labels; empty: sorted by name."""

    videos: list[Wanted]
    classes: tuple[str, ...]


def _text(file: str) -> str:
    try:
        with open(file, encoding="utf-8-sig") as opened:
            return opened.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def _json(file: str) -> Any:
    try:
        return json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: not JSON ({error})") from error


def kinetics(file: str) -> Annotations:
    """`label,youtube_id,time_start,time_end,split`; a clip's file is `<id>_<start>_<end>`, of six digits."""
    rows = list(csv.DictReader(_text(file).splitlines()))
    needed = ("label", "youtube_id", "time_start", "time_end")
    if lacking := [name for name in needed if not rows or not rows[0].get(name)]:
        raise DataError(f"{file}: no column {lacking[0]!r}: Kinetics' csv has {','.join(needed)}")
    videos = []
    for number, row in enumerate(rows, 2):
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
        except (TypeError, ValueError) as error:
            raise DataError(f"{file} line {number}: time_start and time_end must be seconds") from error
        videos.append(Wanted(f"{row['youtube_id']}_{start:06d}_{end:06d}", (row["label"] or "").strip('"')))
    return Annotations(videos, ())


def something(file: str, labels: str = "") -> Annotations:
    """Something-Something's `[{"id": …, "template": "Putting [something]"}]`; labels: `{name: number}`."""
    labels = labels or _first_there(
        os.path.dirname(file), ("labels.json", "something-something-v2-labels.json")
    )
    numbers = _json(labels)
    if not isinstance(numbers, Mapping) or not numbers:
        raise DataError(f"{labels}: it must map the name of each class to its number")
    try:
        classes = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    except (TypeError, ValueError) as error:
        raise DataError(f"{labels}: it must map the name of each class to its number") from error
    if sorted(int(number) for number in numbers.values()) != [*range(len(numbers))]:
        raise DataError(f"{labels}: the numbers of the classes are not 0 to {len(numbers) - 1}")
    entries = _json(file)
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) and "id" in e for e in entries):
        raise DataError(f"{file}: it must be a list of {{'id', 'template'}}")
    videos = []
    for entry in entries:
        if not isinstance(entry.get("template"), str):
            raise DataError(f"{file}: video {entry['id']!r} has no template: the test split has no labels")
        videos.append(Wanted(str(entry["id"]), re.sub(r"[\[\]]", "", entry["template"])))
    return Annotations(_of_classes(file, videos, classes), classes)


def ucf101(file: str, classes: str = "") -> Annotations:
    """`trainlist01.txt`, `testlist01.txt`: `Class/v_Class_g01_c01.avi`, for training with a number."""
    names = read_classes(classes or _first_there(os.path.dirname(file), ("classInd.txt",)))
    videos = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([^/]+)/(.+?)(\.\w+)?( +\d+)?", line.strip())
        if not match:
            raise DataError(f"{file} line {number}: {line[:80]!r} is not Class/video.avi")
        videos.append(Wanted(match[2], match[1]))
        if match[4] and names[int(match[4]) - 1 : int(match[4])] != (match[1],):
            raise DataError(f"{file} line {number}: {match[1]!r} is not class{match[4]}; another class list?")
    return Annotations(_of_classes(file, videos, names), names)


def hmdb51(folder: str, train: bool, split: int = 1) -> Annotations:
    """`<class>_test_split<1..3>.txt`, one a class, with lines `name.avi 1` (train), 2 (test), 0 (none)."""
    ending = f"_test_split{split}.txt"
    try:
        files = sorted(name for name in os.listdir(folder) if name.endswith(ending))
    except OSError as error:
        raise DataError(f"{folder}: no such folder; it must hold <class>{ending}") from error
    if not files:
        raise DataError(f"{folder}: no <class>{ending} in it")
    videos, classes = [], []
    for name in files:
        classes.append(name.removesuffix(ending))
        for number, line in enumerate(_text(os.path.join(folder, name)).splitlines(), 1):
            match = re.fullmatch(r"(.+?)(\.\w+)? +([012]) *", line)
            if not match and line.strip():
                raise DataError(f"{folder}/{name} line {number}: {line[:80]!r} is not 'name.avi 0|1|2'")
            if match and match[3] == ("1" if train else "2"):
                videos.append(Wanted(match[1], classes[-1]))
    return Annotations(videos, tuple(classes))


def _of_classes(file: str, videos: list[Wanted], classes: Iterable[str]) -> list[Wanted]:
    """`videos`, of which each has one of the classes."""
    known = set(classes)
    unknown = [video for video in videos if video.class_name not in known]
    if unknown:
        raise DataError(
            f"{file}: class {unknown[0].class_name!r} of {unknown[0].stem!r} (and {len(unknown) - 1} more) is"
            " not in the list of classes"
        )
    return videos


def _first_there(folder: str, names: tuple[str, ...]) -> str:
    for name in names:
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    raise DataError(f"{folder or '.'}: no {' or '.join(names)} in it; give the list of classes by --classes")
