"""Lists of videos as they go around: which column is what, checked against the files that they name.

A line is `path label` (Kinetics), `folder frames label` (Something-Something as frames), or the same with
commas or tabs, with or without a header. Paths start from a root and may hold spaces. What a column holds is
not believed but looked at: lists with frame counts and labels in either order are around, and a model that is
trained on frame counts as labels learns without complaint.
"""

import csv
import dataclasses
import operator
import os
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from amd_jax.data.class_lists import are_numbers
from amd_jax.data.folders import is_frame
from amd_jax.errors import DataError

SAMPLE = 32  # lines that are compared with the files
ENOUGH = 0.9  # share of them whose frame count has to agree, to one frame

_MEANINGS = {
    "path": ("path", "file", "filename", "file_name", "video", "video_path", "folder", "name", "clip"),
    "label": ("label", "labels", "class", "target", "category", "label_id", "class_id", "class_name"),
    "frames": ("frames", "num_frames", "n_frames", "nframes", "total_frames", "frame_count"),
}
_MEANING = {word: meaning for meaning, words in _MEANINGS.items() for word in words}
_NAMES = {",": "commas", "\t": "tabs", " ": "spaces"}

FILE = -1  # what `look` says of a file
Look = Callable[[str], int | None]
Numbered = tuple[int, str]  # a line and its number, counted from 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a line is read: `columns` of path, frames, label and "" (not used)."""

    separator: str  # " ", "," or tab
    columns: tuple[str, ...]
    header: bool = False

    def fields(self, text: str) -> tuple[str, ...] | None:
        """The columns of a line; None where it does not have so many."""
        found = split_line(text, self.separator, len(self.columns))
        if found is None or len(found) != len(self.columns):
            return None
        unused = [self.header and not column for column in self.columns]
        return found if all(map(operator.or_, map(bool, found), unused)) else None

    def get(self, text: str, column: str) -> str:
        """One column of a line that has them all."""
        fields = self.fields(text)
        assert fields is not None
        return fields[self.columns.index(column)]


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a manifest says, line by line; nothing is said of the meaning of labels."""

    file: str
    layout: Layout
    lines: np.ndarray  # int32 [N], their numbers
    paths: list[str]
    labels: list[str]
    frames: np.ndarray  # int32 [N]; 0: the list does not say
    folders: bool  # videos are folders of frames

    def describe(self) -> str:
        """The columns in words."""
        first = "folder" if self.folders else "path"
        names = " ".join({"path": first, "": "-"}.get(c, c) for c in self.layout.columns)
        return f"{len(self.layout.columns)} columns, {names}"


def look(path: str) -> int | None:
    """None: nothing is there; FILE; or the number of images in a folder."""
    if os.path.isdir(path):
        return sum(map(is_frame, os.listdir(path)))
    return FILE if os.path.exists(path) else None


def split_line(text: str, separator: str, columns: int) -> tuple[str, ...] | None:
    """A line as columns; between spaces only the first of the columns may hold spaces itself."""
    if separator == " ":
        match = re.fullmatch(r"(.*[^ ])" + r" +([^ ]+)" * (columns - 1) + " *", text)
        return match.groups() if match else None
    if separator == ",":
        try:
            return tuple(field.strip() for field in next(csv.reader([text], skipinitialspace=True), ()))
        except csv.Error:  # as of a field of megabytes
            return None
    return tuple(field.strip() for field in text.split(separator))


def read_rows(file: str, root: str, look: Look = look) -> Rows:
    """The rows of the manifest `file`, whose paths start from `root`.

    Raises:
      DataError: the file is not there, is empty, or its columns do not fit each other or the files.
    """
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape") as opened:
            lines = [(number, line.rstrip("\n")) for number, line in enumerate(opened, 1) if line.strip()]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); it must list the videos") from error
    if not lines:
        raise DataError(f"{file}: it is empty; write a line 'path label' for each video")
    layout, folders = find_layout(file, lines, lambda path: look(os.path.join(root, path)))
    rows = _parse(file, lines[layout.header :], layout, folders)
    # One such line would turn all numbers into names.
    if not layout.header and len(rows.labels) > 1 and are_numbers(rows.labels[1:]) > are_numbers(rows.labels):
        raise DataError(
            f"{file} line {lines[0][0]}: label {rows.labels[0]!r} is no number, as all others are; if it is a"
            " header, call the columns path, frames and label"
        )
    return rows


def _parse(file: str, lines: Sequence[Numbered], layout: Layout, folders: bool) -> Rows:
    paths, labels, frames = [], [], np.zeros(len(lines), np.int32)
    at = {name: layout.columns.index(name) for name in layout.columns}
    for row, (number, text) in enumerate(lines):
        fields = layout.fields(text)
        if fields is None:
            raise DataError(
                f"{file} line {number}: {text[:80]!r} does not have {len(layout.columns)} columns between"
                f" {_NAMES[layout.separator]}, as the first line has"
            )
        paths.append(fields[at["path"]])
        labels.append(fields[at["label"]])
        if "frames" in at:
            count = fields[at["frames"]]
            if not re.fullmatch(r"[0-9]{1,9}", count) or not int(count):
                raise DataError(f"{file} line {number}: {count!r} is not a number of frames")
            frames[row] = int(count)
    numbers = np.array([number for number, _ in lines], np.int32)
    return Rows(file, layout, numbers, paths, labels, frames, folders)


def find_layout(file: str, lines: Sequence[Numbered], look: Look) -> tuple[Layout, bool]:
    """The layout of `lines`, and whether the videos are folders of frames.

    Raises:
      DataError: no layout fits, or two do.
    """
    stated = _header(file, lines[0][1])
    sample = [text for _, text in lines[bool(stated) :][:SAMPLE]]
    if not sample:
        raise DataError(f"{file}: nothing but a header; write a line for each video")
    layouts = [stated] if stated else list(_layouts(sample))
    if not layouts:
        number, text = _misfit(lines[:SAMPLE])
        raise DataError(
            f"{file} line {number}: {text[:80]!r} is not 'path label' as other lines are; correct it"
        )
    # The path tells where the columns are split, as it may hold spaces and commas: the file has to be there.
    found = {layout: _looked(layout, sample, look) for layout in layouts}
    layout = max(found, key=lambda layout: len(found[layout]))
    there = found[layout]
    if not there:
        raise _nothing_there(file, layouts[0], sample, look)
    folders = any(count != FILE for count in there.values())
    if folders and any(count == FILE for count in there.values()):
        raise DataError(f"{file}: it lists both video files and folders of frames; make it two sets")
    filled = {text: count for text, count in there.items() if count}
    if not filled:
        raise DataError(f"{file}: {layout.get(next(iter(there)), 'path')!r} is a folder without images")
    return _with_roles(file, layout, filled, folders), folders


def _header(file: str, text: str) -> Layout | None:
    """The layout that a header states; None where the first line is none."""
    for separator in ("\t", ",", " "):
        words = [word.strip().lower() for word in text.split(separator) if word.strip()]
        columns = tuple(_MEANING.get(word, "") for word in words)
        if columns.count("label") != 1 or len(words) < 2:
            continue
        if columns.count("path") == 1 and columns.count("frames") <= 1:
            if separator == " " and columns[0] != "path":
                raise DataError(f"{file}: between spaces the path has to come first; use commas, or reorder")
            return Layout(separator, columns, header=True)
        if "youtube_id" in words:
            raise DataError(
                f"{file}: these are Kinetics' annotations, not a list of files; run python -m"
                " amd_jax.data.manifest build --format=kinetics"
            )
    return None


def _layouts(sample: Sequence[str]) -> Iterator[Layout]:
    """Every way to split all lines into two or three columns, the path first; of three, no role is known."""
    for separator in ("\t", ",", " "):
        for columns in (("path", "label"), ("path", "", "")):
            layout = Layout(separator, columns)
            if all(layout.fields(text) for text in sample):
                yield layout


def _misfit(lines: Sequence[Numbered]) -> Numbered:
    """The first line that has no more than a path, else the first that is not as the line before."""
    splits = [Layout(separator, ("path", "label")) for separator in _NAMES]
    fits = [{layout for layout in splits if layout.fields(text)} for _, text in lines]
    common = fits[0]
    for line, fit in zip(lines, fits, strict=True):
        if not (common := common & fit):
            return line
    return lines[0]


def _looked(layout: Layout, sample: Sequence[str], look: Look) -> dict[str, int]:
    """What `look` says of the lines whose path is there."""
    looked = {text: look(layout.get(text, "path")) for text in sample if layout.fields(text)}
    return {text: count for text, count in looked.items() if count is not None}


def _nothing_there(file: str, layout: Layout, sample: Sequence[str], look: Look) -> DataError:
    """What is wrong where no path is there: most often the root, now and then the order."""
    for text in sample:
        first, *rest = text.split(layout.separator, 1)
        if rest and look(rest[0].strip()) is not None:
            return DataError(f"{file}: the path comes after {first!r}; it has to be the first column")
    path = layout.get(sample[0], "path") if layout.fields(sample[0]) else sample[0]
    return DataError(
        f"{file}: {path[:120]!r} is not there, nor are the next {len(sample) - 1}; set the root (data.path)"
        " to the folder that the paths start from"
    )


def _with_roles(file: str, layout: Layout, there: dict[str, int], folders: bool) -> Layout:
    """Tells frame counts from labels, by the images in the folders; checks what a header says of them."""
    agree = [_agreement(layout, there, column) if folders else 0 for column in range(len(layout.columns))]
    numeric = [
        all(re.fullmatch(r"[0-9]{1,9}", (layout.fields(text) or ())[column]) for text in there)
        for column in range(len(layout.columns))
    ]
    if "frames" in layout.columns:
        return _checked(file, layout, there, agree, folders)
    if "label" in layout.columns:
        column = layout.columns.index("label")
        if len(there) >= 3 and agree[column] == 1 and len({*there.values()}) > 1:
            raise DataError(
                f"{file}: column {column + 1} is the number of frames; a column of labels is missing"
            )
        return layout
    if numeric[1] != numeric[2]:
        order = ("path", "frames", "label") if numeric[1] else ("path", "label", "frames")
        return _checked(file, dataclasses.replace(layout, columns=order), there, agree, folders)
    if not numeric[1]:
        raise DataError(f"{file}: neither column 2 nor column 3 is a number of frames; name them in a header")
    if not folders:
        raise DataError(
            f"{file}: which of columns 2 and 3 is the label cannot be told of video files; add a header,"
            " such as 'path frames label'"
        )
    order = ("path", "frames", "label") if agree[1] >= agree[2] else ("path", "label", "frames")
    return _checked(file, dataclasses.replace(layout, columns=order), there, agree, folders)


def _agreement(layout: Layout, there: dict[str, int], column: int) -> float:
    """Share of the lines whose number in `column` is that of the images in the folder, to one."""
    values = [((layout.fields(text) or ())[column], count) for text, count in there.items()]
    good = (re.fullmatch(r"[0-9]{1,9}", v) is not None and abs(int(v) - n) <= 1 for v, n in values)
    return sum(good) / len(values)


def _checked(
    file: str, layout: Layout, there: dict[str, int], agree: Sequence[float], folders: bool
) -> Layout:
    """`layout`, if its frame counts are those of the folders."""
    frames, label = layout.columns.index("frames"), layout.columns.index("label")
    if not folders or agree[frames] >= ENOUGH:
        return layout
    if agree[label] >= ENOUGH:
        raise DataError(
            f"{file}: its header calls column {frames + 1} the frames, but column {label + 1} is the number"
            " of images; swap the two words"
        )
    text, count = next(iter(there.items()))
    given = layout.get(text, "frames")
    for text, count in there.items():
        given = layout.get(text, "frames")
        if given != str(count):
            break
    raise DataError(
        f"{file}: {layout.get(text, 'path')!r} has {count} images, but its line says {given} frames (or"
        f" {layout.get(text, 'label')}): correct the column or leave it out"
    )
