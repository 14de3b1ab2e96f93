"""Lists of videos: make one from a folder or from official annotations; check that every video can be read.

    python -m amd_jax.data.manifest build --root=DIR --output=DIR/train.csv [--format=F --annotations=FILE]
    python -m amd_jax.data.manifest check --root=DIR [--manifest=FILE] [--min_frames=16]

`build` writes a csv with a header, `path,label,frames,bytes`, which `data.source = 'manifest'` reads, with
labels as numbers, and the names of the classes as `classes.txt` beside it. An evaluation split takes the
`classes.txt` that the training split left there. What is missing or cannot be read is left out, counted and
named in `NAME.left_out.txt`. Formats (`--format`, with what `--annotations` names):

    folder     DIR/<split>/<class>/<video>, or DIR/<class>/<video>: no annotations
    kinetics   the csv with label,youtube_id,time_start,time_end
    something  Something-Something's train.json; --classes=labels.json
    ucf101     trainlist01.txt; --classes=classInd.txt
    hmdb51     the folder with <class>_test_split1.txt (--fold=1)

Videos of annotations are found by name anywhere below DIR: files, or folders of frames. `check` writes what
is bad to a list, `path<TAB>reason`, and then ends with exit code 2: the data have to change.
"""

import argparse
import collections
import csv
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from amd_jax import exits
from amd_jax.data import annotations, video_check
from amd_jax.data.annotations import Annotations, Wanted
from amd_jax.data.class_lists import CLASSES_FILE, read_classes
from amd_jax.data.folders import (
    SPLIT_NAMES,
    VIDEO_SUFFIXES,
    FolderSource,
    Split,
    kind_of_videos,
    split_folder,
    subfolders,
)
from amd_jax.data.jobs import cores, results
from amd_jax.data.unlabelled import videos_below
from amd_jax.data.video_sources import manifest_file, read_manifest, training_list
from amd_jax.errors import DataError, UserError

FORMATS = ("folder", "kinetics", "something", "ucf101", "hmdb51")
HEADER = ("path", "label", "frames", "bytes")
LeftOut = list[tuple[str, str]]  # a video and why


def find(wanted: Iterable[Wanted], root: str) -> tuple[list[tuple[str, str]], LeftOut]:
    """(path, class) of the videos that are below `root`, and those that are not.

    Of several with one name, that in a folder called like the class (spaces may be underscores) is taken.
    """
    there = collections.defaultdict(list)
    for path in videos_below(root):
        name = os.path.basename(path)
        stem, suffix = os.path.splitext(name)
        there[stem if suffix.lower() in VIDEO_SUFFIXES else name].append(path)
    found: list[tuple[str, str]] = []
    missing: LeftOut = []
    for stem, class_name in wanted:
        folders = {class_name, class_name.replace(" ", "_")}
        paths = there.get(stem, [])
        own = [path for path in paths if os.path.basename(os.path.dirname(path)) in folders]
        if paths:
            found.append(((own or paths)[0], class_name))
        else:
            missing.append((stem, "missing"))
    return found, missing


def _of_folder(root: str, split: Split, name: str) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """(path, class) of all videos in class folders, and the classes."""
    try:
        split_folder(root, split, name)
    except UserError:
        # The class folders may lie in the root itself, but not beside those of another split.
        if name or not os.path.isdir(root) or {*subfolders(root)} & {*itertools.chain(*SPLIT_NAMES.values())}:
            raise
        name = "."
    kind = kind_of_videos(split_folder(root, split, name))
    source = FolderSource(root, split, name, name if name == "." else "train", kind)
    paths = (os.path.relpath(source.describe(i), root) for i in range(len(source)))
    return [(path, source.class_names[source.label(i)]) for i, path in enumerate(paths)], source.class_names


def _annotated(args: argparse.Namespace) -> Annotations:
    if not args.annotations:
        raise DataError(f"--annotations is missing; --format={args.format} needs it")
    match args.format:
        case "kinetics":
            return annotations.kinetics(args.annotations)
        case "something":
            return annotations.something(args.annotations, args.classes)
        case "ucf101":
            return annotations.ucf101(args.annotations, args.classes)
    return annotations.hmdb51(args.annotations, args.split == "train", args.fold)


def build(args: argparse.Namespace) -> str:
    """Writes the manifest, and says in one line what is in it.

    Raises:
      DataError: there is nothing to list, or the classes do not fit.
    """
    if not os.path.isdir(args.root):
        raise DataError(f"--root={args.root}: no such folder; it is where the videos are")
    left_out: LeftOut = []
    if args.format == "folder":
        videos, classes = _of_folder(args.root, args.split, args.split_name)
    else:
        official = _annotated(args)
        classes = official.classes
        videos, left_out = find(official.videos, args.root)
        if not videos:
            first = official.videos[0].stem if official.videos else "(there is none)"
            raise DataError(
                f"--root={args.root}: none of {len(official.videos)} videos of {args.annotations} is there,"
                f" as {first}"
            )
    number = _numbers(args, videos, classes)
    written = _write(args, videos, number, left_out)
    list_file = f"{os.path.splitext(args.output)[0]}.left_out.txt"
    write_list(list_file, left_out)
    named = (
        f"; {len(left_out):,} left out, such as {': '.join(left_out[0])}: see {list_file}" if left_out else ""
    )
    return f"{args.output}: {written:,} videos, {len(number)} classes{named}"


def _numbers(
    args: argparse.Namespace, videos: Sequence[tuple[str, str]], classes: Sequence[str]
) -> Mapping[str, int]:
    """The label of each class; `classes.txt` beside the manifest is taken where it is there, else written."""
    file = os.path.join(os.path.dirname(args.output), CLASSES_FILE)
    used = {class_name for _, class_name in videos}
    if os.path.exists(file):
        classes = read_classes(file)
        if unknown := sorted(used - set(classes)):
            raise DataError(f"{file}: class {unknown[0]!r} (and {len(unknown) - 1} others) is not in it")
    else:
        classes = classes or sorted(used)
        os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
        with open(file, "w", encoding="utf-8", errors="surrogateescape") as opened:
            opened.writelines(f"{name}\n" for name in classes)
    return {name: label for label, name in enumerate(classes)}


def _write(
    args: argparse.Namespace,
    videos: Sequence[tuple[str, str]],
    number: Mapping[str, int],
    left_out: LeftOut,
) -> int:
    """The rows of what can be read, with its size; how many there are. The rest is added to `left_out`."""
    paths = [os.path.join(args.root, path) for path, _ in videos]
    facts = results("looked at", video_check.inspect, paths, args.jobs)
    part = f"{args.output}.part"
    with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(HEADER)
        written = 0
        for (path, class_name), fact in zip(videos, facts, strict=True):
            if fact.problem:
                left_out.append((path, fact.problem))
            else:
                writer.writerow((path, number[class_name], fact.frames, fact.size))
                written += 1
    if not written:
        os.remove(part)
        raise DataError(f"--root={args.root}: no video can be read: {': '.join(left_out[0])}")
    os.replace(part, args.output)
    return written


def write_list(file: str, rows: Iterable[tuple[str, str]]) -> None:
    """`path<TAB>reason` line by line."""
    with open(file, "w", encoding="utf-8", errors="surrogateescape") as opened:
        opened.writelines(f"{path}\t{reason}\n" for path, reason in rows)


def check(args: argparse.Namespace) -> int:
    """Opens every video of a manifest and lists those that are bad; returns the exit code."""
    file = manifest_file(args.root, args.split, args.manifest)
    manifest = read_manifest(file, args.root, training_list(args.root, args.split))
    print(manifest.describe())
    known = [label >= 0 for label in manifest.labels]
    bad = video_check.find_bad(manifest.rows, args.root, known, args.min_frames, args.jobs)
    output = args.output or f"{os.path.splitext(file)[0]}.bad.txt"
    write_list(output, bad)
    if not bad:
        print(f"all {len(manifest.rows.paths):,} videos are good")
        return exits.DONE
    kinds = collections.Counter(
        part.partition(":")[0].split(" of ")[0] for _, r in bad for part in r.split("; ")
    )
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    message = f"{len(bad):,} of {len(manifest.rows.paths):,} videos are bad ({counts}); {output} lists them"
    return exits.say(exits.USAGE, message)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m amd_jax.data.manifest", description="Lists of videos.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="write a manifest")
    checking = commands.add_parser("check", help="open every video of a manifest")
    for command in (making, checking):
        command.add_argument("--root", required=True, help="folder that the paths start from (data.path)")
        command.add_argument("--split", choices=("train", "eval"), default="train", help="what it is for")
        command.add_argument("--jobs", type=int, default=cores(), help="processes that open videos")
    making.add_argument("--output", required=True, help="the manifest, e.g. DIR/train.csv")
    making.add_argument("--format", choices=FORMATS, default="folder", help="where the labels come from")
    making.add_argument("--annotations", default="", help="the official file (HMDB51: the folder)")
    making.add_argument("--classes", default="", help="UCF101's classInd.txt, Something's labels.json")
    making.add_argument("--fold", type=int, choices=(1, 2, 3), default=1, help="HMDB51: which of its splits")
    making.add_argument("--split_name", default="", help="format folder: name of the split's folder")
    checking.add_argument("--manifest", default="", help="the list; without it train.txt and so on in --root")
    checking.add_argument("--min_frames", type=int, default=1, help="shorter videos are bad")
    checking.add_argument("--output", default="", help="where bad videos are listed; MANIFEST.bad.txt")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds or checks a manifest; returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        if args.command == "check":
            return check(args)
        print(build(args))
    except OSError as error:  # those of a video are in the list of what is bad
        return exits.say(exits.UNSAVED, error)
    except Exception as error:
        return exits.told(error)
    return exits.DONE


if __name__ == "__main__":
    sys.exit(main())
