"""Embedded images that move: a small set of videos whose label is the motion, in memory or as H.264 files.

    python -m amd_jax.data.moving --out=DIR

writes `DIR/{train,val}/<motion>/NUMBER.mp4`. An image of Fashion-MNIST moves over a canvas without borders,
in one of eight directions at one of two speeds, from a place that is drawn: no single frame tells the motion,
and no motion the image.
"""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from amd_jax import exits
from amd_jax.data.example import Example
from amd_jax.data.fashion import EmbeddedSource
from amd_jax.data.folders import SPLIT_NAMES, Split
from amd_jax.data.jobs import cores, results
from amd_jax.errors import ConfigError, DataError

SIZE = 32  # of the canvas, pixels
FRAMES = 24
FPS = 12
DIRECTIONS = {
    "right": (0, 1), "down right": (1, 1), "down": (1, 0), "down left": (1, -1),
    "left": (0, -1), "up left": (-1, -1), "up": (-1, 0), "up right": (-1, 1),
}  # fmt: skip
SPEEDS = {"slowly": 1, "fast": 2}  # pixels a frame


class MovingSource:
    """Videos [24, 32, 32, 1] of the embedded images; the label is the motion, 16 of equal size.

    One video of each image, or those that a name such as `train[:40000]` says: video 10,003 is the fourth
    image again, from another place and with the next motion.
    """

    class_names = tuple(f"{direction} {speed}" for direction in DIRECTIONS for speed in SPEEDS)
    num_classes = len(class_names)

    def __init__(self, split: Split, name: str = "") -> None:
        self._made_of = split, name
        named = re.fullmatch(r"(train|eval)\[(\d*):(\d+)\]", name)
        if name and not named:
            example = "train[:40000] or train[40000:44000]"
            raise ConfigError(
                f"data.{split}_split={name!r}: moving has {example}, or nothing for one of each image"
            )
        self._pool: Split = "eval" if (named[1] if named else split) == "eval" else "train"
        self._images = EmbeddedSource(self._pool)
        first, last = (int(named[2] or 0), int(named[3])) if named else (0, len(self._images))
        self._numbers = range(first, last)
        if not self._numbers:
            raise ConfigError(f"data.{split}_split={name!r}: no video has such a number")
        numbers = np.arange(first, last)
        self.labels = (numbers + numbers // len(self._images)) % self.num_classes

    def __reduce__(self) -> tuple[type, tuple[Split, str]]:
        return MovingSource, self._made_of

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        number = self._numbers[index]
        image = np.asarray(self._images[number % len(self._images)].content)
        rng = np.random.default_rng((number, self._pool == "eval"))
        return Example(moved(image, self.label(index), rng.integers(SIZE, size=2)), self.label(index))

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def describe(self, index: int) -> str:
        return f"moving {self._pool} image {self._numbers[index]}"


def moved(image: np.ndarray, motion: int, start: np.ndarray) -> np.ndarray:
    """uint8 [frames, 32, 32, 1]: `image` [28, 28] moving from `start` (row, column), around the canvas."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    direction, speed = divmod(motion, len(SPEEDS))
    step = np.array(list(DIRECTIONS.values())[direction]) * list(SPEEDS.values())[speed]
    places = np.asarray(start) + step * np.arange(FRAMES)[:, None]
    rows, columns = ((np.arange(SIZE) - places[:, axis, None]) % SIZE for axis in (0, 1))  # [frames, SIZE]
    return canvas[rows[:, :, None], columns[:, None, :], None]


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes a video as a file of its class, unless it is there already; sent to each process once."""

    folder: Path
    sources: Mapping[Split, MovingSource]

    def __call__(self, item: tuple[Split, int]) -> None:
        """The video of this split and number."""
        from amd_jax.data.encode import encode

        split, number = item
        source = self.sources[split]
        class_name = source.class_names[source.label(number)]
        path = self.folder / SPLIT_NAMES[split][0] / class_name / f"{number:05}.mp4"
        if path.exists():
            return
        content, _ = source[number]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(encode(np.asarray(content), FPS, gop=FPS))
        os.replace(temporary, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files; returns the exit code."""
    parser = argparse.ArgumentParser("python -m amd_jax.data.moving", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=10_000, help="videos to train on, at most 10000")
    parser.add_argument("--eval", type=int, default=2_000, help="videos to evaluate on, at most 2000")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    wanted: dict[Split, int] = {"train": args.train, "eval": args.eval}
    try:
        sources = {split: MovingSource(split) for split in wanted}
        counts = {split: min(count, len(sources[split])) for split, count in wanted.items()}
        items = [(split, number) for split, count in counts.items() for number in range(count)]
        results("videos", Writer(folder, sources), items, args.jobs)
    except OSError as error:
        return exits.told(DataError(f"--out={args.out}: cannot be written to ({error.strerror or error})"))
    except Exception as error:
        return exits.told(error)
    print(f"{folder}: {args.train} videos to train on, {args.eval} to evaluate on")
    return exits.DONE


if __name__ == "__main__":
    sys.exit(main())
