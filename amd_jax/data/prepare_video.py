"""Videos of any source as small clips in a few large files, which `data.source = 'clips'` reads.

    python -m amd_jax.data.prepare_video --source=manifest --path=DIR --split=train --output=OUT

Every video is decoded, scaled to a short side of 256 pixels and encoded again as H.264 with short groups of
pictures, so that any frame is reached by decoding few others. OUT/train then holds ArrayRecord files of
`--shard_size` clips (the record is described in clip_records.py), and `clips.json` with classes, counts,
settings and what was left out. Files appear when they are complete. The same command goes on where it was
stopped: it makes those that are missing.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from amd_jax import config, exits
from amd_jax.buckets import check_on_disk
from amd_jax.data.clip_records import FORMAT, INDEX, pack, shard_name, write_shard
from amd_jax.data.encode import encode
from amd_jax.data.example import Source
from amd_jax.data.folders import SPLIT_NAMES
from amd_jax.data.jobs import Progress, cores, in_order
from amd_jax.data.sources import make_source
from amd_jax.data.video import OpenVideo, open_video
from amd_jax.errors import DataError

AT_ONCE = 2**29  # bytes of frames of full size, per process
LONGEST = 2**32  # bytes of the small frames of a clip: eight minutes of 256 x 454 pixels
SECONDS = 300.0  # for a reading of that size
# Nothing reads the times of a clip, as frames are counted: all clips are stored, and play, at this rate.
FPS = 25


@dataclasses.dataclass(frozen=True)
class Clip:
    """A record, or why there is none."""

    label: int
    record: bytes = b""
    name: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Makes the record of an example; sent to each process once."""

    source: Source
    short_side: int
    gop: int
    crf: int

    def __call__(self, index: int) -> Clip:
        """The clip of the example at `index`; what cannot be read is in the answer."""
        name, label = self.source.describe(index), -1
        try:
            example = self.source[index]
            label = example.label
            if isinstance(example.content, bytes):
                raise OSError("an image, not a video")
            with open_video(example.content, SECONDS) as video:
                frames = _small_frames(video, self.short_side)
        except OSError as error:
            return Clip(label, name=name, reason=" ".join(str(error).split()))
        data = encode(frames, FPS, gop=self.gop, crf=self.crf)
        header = {"name": name, "label": label, "frames": len(frames)}
        return Clip(label, pack(header, data), name)


def _small_frames(video: OpenVideo, short_side: int) -> np.ndarray:
    """All frames, uint8 [T, h, w, 3], h and w even; min(h, w) is `short_side` unless they were smaller."""
    first = video.read(np.zeros(1, int), 3)[0]
    height, width = small_size(first.shape[0], first.shape[1], short_side)
    at_once = max(1, AT_ONCE // first.nbytes)
    if video.count * height * width * 3 > LONGEST:
        raise OSError(f"{video.count} frames are too many for one clip; cut the video into clips first")
    small = []
    for start in range(0, video.count, at_once):
        for frame in video.read(np.arange(start, min(start + at_once, video.count)), 3):
            picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
            small.append(np.asarray(picture))
    return np.stack(small)


def small_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width, even as H.264 wants them, with the short side scaled down to `short_side`."""
    scale = min(1.0, short_side / min(height, width))
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which examples each file holds, and the folder they go to."""

    folder: str
    examples: int
    shard_size: int
    settings: dict[str, Any]

    @property
    def shards(self) -> int:
        """Number of files."""
        return -(-self.examples // self.shard_size)

    def indices(self, shard: int) -> range:
        """The examples of a file."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.examples))

    def path(self, shard: int) -> str:
        """Where the file goes."""
        return os.path.join(self.folder, shard_name(shard, self.shards))

    def notes(self, shard: int) -> str:
        """What is noted of a finished file until all are: labels, what was left out, settings."""
        return f"{self.path(shard)}.json"


def prepare_video(
    source: Source,
    folder: str,
    *,
    short_side: int = 256,
    gop: int = 12,
    crf: int = 20,
    shard_size: int = 256,
    jobs: int = 1,
) -> dict[str, Any]:
    """Writes the clips of `source` to `folder`, and returns what `clips.json` then says.

    Args:
      crf: quality of x264, 0 (lossless) to 51; about 20 shows no difference.

    Raises:
      DataError: `folder` holds clips of other settings or another source, or none can be read.
    """
    settings: dict[str, Any] = {"short_side": short_side, "gop": gop, "crf": crf, "shard_size": shard_size}
    settings["source"] = fingerprint(source)
    layout = Layout(folder, len(source), shard_size, settings)
    os.makedirs(folder, exist_ok=True)
    if finished := _finished(layout):
        return finished
    done = [shard for shard in range(layout.shards) if _is_done(layout, shard)]
    missing = [shard for shard in range(layout.shards) if shard not in {*done}]
    progress = Progress("clips", len(source), sum(len(layout.indices(shard)) for shard in done))
    indices = itertools.chain.from_iterable(map(layout.indices, missing))
    clips = in_order(Encoder(source, short_side, gop, crf), indices, jobs, progress)
    with contextlib.closing(clips):
        for shard in missing:
            _write(layout, shard, itertools.islice(clips, len(layout.indices(shard))))
    progress.end()
    return _join(layout, source)


def fingerprint(source: Source) -> str:
    """Changes with the names of the examples, so that two sources are not mixed in one set."""
    names = (f"{source.describe(i)}\n".encode(errors="surrogateescape") for i in range(len(source)))
    total = hashlib.sha256()
    for name in names:
        total.update(name)
    return total.hexdigest()[:16]


def _same_settings(layout: Layout, noted: dict[str, Any]) -> None:
    for name, value in layout.settings.items() if isinstance(noted, dict) else ():
        if noted.get(name) != value:
            raise DataError(
                f"--output={layout.folder}: it holds clips with {name}={noted.get(name)!r}, not {value!r};"
                " choose another folder or remove it"
            )


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def _write_json(path: str, content: Any) -> None:
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=True)
    os.replace(f"{path}.part", path)


def _finished(layout: Layout) -> dict[str, Any] | None:
    """`clips.json` where an earlier run wrote it."""
    index = _read_json(os.path.join(layout.folder, INDEX))
    if index is not None:
        _same_settings(layout, index["settings"])
    return index


def _is_done(layout: Layout, shard: int) -> bool:
    """Whether an earlier run finished the file; raises DataError where it had other settings."""
    notes = _read_json(layout.notes(shard))
    if notes is None or not os.path.exists(layout.path(shard)):
        return False
    _same_settings(layout, notes["settings"])
    return True


def _write(layout: Layout, shard: int, clips: Iterator[Clip]) -> None:
    """One file. The notes come first and the clips last, so that clips without notes are never seen."""
    made = list(clips)
    good = [clip for clip in made if clip.record]
    notes = {
        "settings": layout.settings,
        "labels": [clip.label for clip in good],
        "left_out": [[clip.name, clip.reason] for clip in made if not clip.record],
    }
    with contextlib.suppress(FileNotFoundError):
        os.remove(layout.path(shard))
    _write_json(layout.notes(shard), notes)
    write_shard(layout.path(shard), [clip.record for clip in good])


def _join(layout: Layout, source: Source) -> dict[str, Any]:
    """Writes `clips.json` from the notes of all files, which then go."""
    notes = [_read_json(layout.notes(shard)) for shard in range(layout.shards)]
    left_out = [entry for note in notes for entry in note["left_out"]]
    labels = [label for note in notes for label in note["labels"]]
    if not labels:
        raise DataError(f"none of {len(source)} videos can be read: {': '.join(left_out[0])}")
    index = {
        "format": FORMAT,
        "classes": list(source.class_names),
        "num_classes": source.num_classes,
        "count": len(labels),
        "of_each_class": np.bincount(
            np.asarray([label for label in labels if label >= 0], np.int64), minlength=source.num_classes
        ).tolist(),
        "settings": layout.settings,
        "left_out": left_out,
        "shards": [
            {"file": os.path.basename(layout.path(shard)), "labels": note["labels"]}
            for shard, note in enumerate(notes)
        ],
    }
    _write_json(os.path.join(layout.folder, INDEX), index)
    for shard in range(layout.shards):
        os.remove(layout.notes(shard))
    return index


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m amd_jax.data.prepare_video")
    parser.add_argument("--source", choices=("folder", "manifest", "tfds", "clips"), required=True)
    parser.add_argument("--path", default="", help="as data.path")
    parser.add_argument("--name", default="", help="as data.name, for tfds")
    parser.add_argument("--split", choices=("train", "eval"), default="train", help="what the clips are for")
    parser.add_argument("--split_name", default="", help="as data.train_split or data.eval_split")
    parser.add_argument("--output", required=True, help="data.path of the clips; they go to train/ or val/")
    parser.add_argument("--short_side", type=int, default=256, help="pixels; smaller videos stay as they are")
    parser.add_argument("--gop", type=int, default=12, help="frames of a group of pictures")
    parser.add_argument("--crf", type=int, default=20, help="quality of x264: 0 lossless, 51 worst")
    parser.add_argument("--shard_size", type=int, default=256, help="clips of a file")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes that encode")
    return parser


def _source(args: argparse.Namespace) -> Source:
    data = config.default().data
    names = {f"{args.split}_split": args.split_name}
    data.update({"source": args.source, "path": args.path, "name": args.name, "frames": 2, **names})
    return make_source(data, args.split)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares clips; returns the exit code."""
    args = _parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        check_on_disk("--output", args.output)
        for name, least in (("short_side", 2), ("gop", 1), ("crf", 0), ("shard_size", 1), ("jobs", 1)):
            if getattr(args, name) < least:
                raise DataError(f"--{name}={getattr(args, name)}: must be at least {least}")
        keys = ("short_side", "gop", "crf", "shard_size", "jobs")
        folder = os.path.join(args.output, SPLIT_NAMES[args.split][0])
        index = prepare_video(_source(args), folder, **{key: getattr(args, key) for key in keys})
    except KeyboardInterrupt:
        return exits.say(exits.STOPPED, "finished files are kept; the same command goes on")
    except OSError as error:  # those of reading a video are counted
        return exits.say(exits.UNSAVED, f"{error}; when it can be written, the same command goes on")
    except Exception as error:
        return exits.told(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    left_out = _left_out(index["left_out"])
    classes = f" of {index['num_classes']} classes" if index["num_classes"] else ", without labels"
    print(f"{folder}: {index['count']:,} clips{classes}; {left_out}")
    print(f"Use it with data.source='clips', data.path={args.output!r}")
    return exits.DONE


def _left_out(left_out: Sequence[Sequence[str]]) -> str:
    if not left_out:
        return "none left out"
    return f"{len(left_out):,} left out, such as {': '.join(left_out[0])}: {INDEX} names them"


if __name__ == "__main__":
    sys.exit(main())
