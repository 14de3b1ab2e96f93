"""How many training examples a core makes of videos: by decoding alone, and with all that the recipes do.

    python benchmarks/video_input.py [--sizes 256x340 720x1280]

What is timed is the input of a run: its reader (source, sampling, decoding) and its views, by the settings of
configs/vitb_k400.py (four crops of each decoded clip) and configs/finetune_vitb_k400.py (two, with
RandAugment). Videos look like those of Kinetics: 10 seconds at 30 frames a second, H.264 with a key frame
every 250 frames, as video sites have them, and every 12; and clips that `amd_jax.data.prepare_video` makes of
the former. Beside them, for decoding alone, OpenCV and decord, where they are installed. All run on one core
and take turns; CPU time is counted, so that others on the machine matter little. Files are in the page cache.
At the end: what a TPU v5e chip would take.
"""

import argparse
import cProfile
import dataclasses
import importlib
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from video_decode import FPS, Read, about, moving, readers

from amd_jax.data import reading, sampling
from amd_jax.data.encode import encode
from amd_jax.data.example import Source, VideoFile
from amd_jax.data.prepare_video import prepare_video
from amd_jax.data.reading import Reader
from amd_jax.data.sources import make_source
from amd_jax.data.video import open_video
from amd_jax.data.views import TrainViews

CONFIGS = {"pre-training": ("vitb_k400", "pretrain"), "fine-tuning": ("finetune_vitb_k400", "finetune")}
OURS = ("amd_jax", "PyAV, full decode")  # among the readers
STAGES = ("read", "rand_augment", "multi_scale_crop", "random_resized_crop", "random_flip", "random_erasing")
PEAK, MFU = 197e12, 0.4  # of a TPU v5e chip, bfloat16; the share of it that a run is taken to use
CORES = 112 / 4  # a chip of ct5lp-hightpu-4t, the host of four


@dataclasses.dataclass(frozen=True)
class Input:
    """A run's reader and views on one source."""

    reader: Reader
    views: TrainViews

    def decode(self, number: int) -> object:
        """The frames of example `number`."""
        return self.reader.read(number % len(self.reader.source), (number,))

    def example(self, number: int) -> object:
        """Its views."""
        frames, _ = self.reader.read(number % len(self.reader.source), (number,))
        return self.views(frames, (number,))


def make_input(name: str, role: str, source: Source) -> Input:
    """That of a run of `configs/NAME.py`."""
    data = importlib.import_module(f"configs.{name}").get_config().data
    sampler = sampling.make(data.sampling, role, frames=data.frames, stride=data.stride, clips=1)
    return Input(Reader(source, data.channels, sampler), TrainViews.from_config(data))


def sources(
    folder: Path, sizes: list[str], gops: list[int], videos: int
) -> Iterator[tuple[str, Source, bool]]:
    """What is read, by name and size, and whether they are files of their own."""
    for size in sizes:
        height, width = map(int, size.split("x"))
        pixels = [moving(seed, height, width) for seed in range(videos)]
        for gop in gops:
            path = folder / f"{size}-{gop}"
            (path / "train" / "a").mkdir(parents=True)
            for number, frames in enumerate(pixels):
                (path / "train" / "a" / f"{number}.mp4").write_bytes(encode(frames, FPS, gop=gop))
            source = _source("folder", path)
            yield f"{width}×{height} files, key frame every {gop}, {_mib(path, videos)}", source, True
            if gop == max(gops):
                start = time.process_time()
                prepare_video(source, str(path / "clips" / "train"))
                rate = videos / (time.process_time() - start)
                made = f"prepared at {rate:.2f} videos/s, {_mib(path / 'clips', videos)}"
                yield f"clips of these, {made}", _source("clips", path / "clips"), False


def _mib(path: Path, videos: int) -> str:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{size / videos / 2**20:.1f} MiB each"


def _source(kind: str, path: Path) -> Source:
    data = importlib.import_module("configs.vitb_k400").get_config().data
    data.source, data.path = kind, str(path)
    return make_source(data, "train")


def ways(source: Source, files: bool) -> dict[str, Callable[[int], object]]:
    """What is timed on a source, each a function of a number."""
    inputs = {column: make_input(*names, source) for column, names in CONFIGS.items()}
    first = inputs["pre-training"]
    found: dict[str, Callable[[int], object]] = {"decode: amd_jax": first.decode}
    if files:
        others = {name: read for name, read in readers().items() if name not in OURS}
        found |= {f"decode: {name}": _alternative(read, first.reader) for name, read in others.items()}
    return found | {f"{column} example": made.example for column, made in inputs.items()}


def _alternative(read: Read, reader: Reader) -> Callable[[int], object]:
    """The same frames by another reader; how many there are is known to it beforehand."""
    paths = [reader.source.describe(i) for i in range(len(reader.source))]
    counts = []
    for path in paths:
        with open_video(VideoFile(path)) as video:
            counts.append(video.count)

    def run(number: int) -> object:
        rng = np.random.default_rng((number, reading._FRAMES))
        at = number % len(paths)
        return read(paths[at], reader.sampler(counts[at], rng)[0])

    return run


def measure(timed: dict[str, Callable[[int], object]], clips: int, rounds: int) -> dict[str, float]:
    """Examples a second of CPU time of each, the median over rounds in which they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(-1, rounds):  # the first warms up
        names = list(timed)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.process_time()
            for number in range(clips):
                timed[name](max(turn, 0) * clips + number)
            rates[name].append(clips / (time.process_time() - start))
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


def stages(made: Callable[[int], object], clips: int) -> dict[str, float]:
    """Milliseconds an example by the function that they go to."""
    profile = cProfile.Profile(time.process_time)
    for number in range(clips):
        profile.runcall(made, number)
    spent = dict.fromkeys(STAGES, 0.0)
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():
        if name in spent and ("reading" in file or name != "read"):
            spent[name] += 1000 * cumulative / clips
    return {name: value for name, value in spent.items() if value}


def wanted() -> Iterator[str]:
    """What a TPU v5e chip takes of each run, from the model's FLOPs; nothing is allocated."""
    import jax

    from amd_jax.sharding import make_mesh
    from amd_jax.train import program

    for column, (name, _) in CONFIGS.items():
        config = importlib.import_module(f"configs.{name}").get_config()
        run = program.build(config, make_mesh(devices=jax.devices()[:1]), examples=240_000, classes=400)
        views = config.data.repeats
        flops = run.flops_per_step / config.batch_size / views
        rate = MFU * PEAK / flops
        yield (
            f"{column}: {flops / 1e9:.0f} GFLOP a clip, so {rate:.0f} clips/s, {rate / views:.1f} videos/s;"
            f" of each of its {CORES:g} cores {rate / views / CORES:.2f} videos/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["256x340"], help="height x width of the videos")
    parser.add_argument("--gops", type=int, nargs="+", default=[250, 12], help="frames to a key frame")
    parser.add_argument("--videos", type=int, default=2, help="files of each kind")
    parser.add_argument("--clips", type=int, default=12, help="examples in a round")
    parser.add_argument("--rounds", type=int, default=7, help="the table shows the median of so many")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(about())
    with tempfile.TemporaryDirectory() as folder:
        for name, source, files in sources(Path(folder), args.sizes, args.gops, args.videos):
            timed = ways(source, files)
            print(f"\n{name}: examples a second of a core")
            for way, rate in measure(timed, args.clips, args.rounds).items():
                print(f"  {way:24}{rate:8.2f}")
            for column in CONFIGS:
                spent = stages(timed[f"{column} example"], 2 * args.clips)
                print(f"  {column}, ms:", ", ".join(f"{way} {ms:.1f}" for way, ms in spent.items()))
    print(f"\na TPU v5e chip at {MFU:.0%} of {PEAK / 1e12:g} TFLOP/s takes")
    for line in wanted():
        print(f"  {line}")


if __name__ == "__main__":
    main()
