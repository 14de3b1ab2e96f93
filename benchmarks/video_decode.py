"""How many clips a second are decoded on one core: ours beside a full decode, OpenCV and decord.

    python benchmarks/video_decode.py

A clip is 16 frames at stride 4 from a random start, in colour; a video is opened anew for each, as in
training. Videos look like those of Kinetics: 340 × 256, 10 seconds at 30 frames a second, H.264. OpenCV and
decord are left out where they are not installed. Readers take turns, so that a busy machine is busy for all.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from amd_jax.data.encode import encode
from amd_jax.data.example import VideoFile
from amd_jax.data.sampling import Strided
from amd_jax.data.video import open_video

Read = Callable[[str, np.ndarray], np.ndarray]
HEIGHT, WIDTH, FPS, SECONDS = 256, 340, 30, 10


def moving(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Discs that move over a noisy ground that pans, uint8 [T, H, W, 3]; larger ones show the same larger."""
    rng = np.random.default_rng(seed)
    count = FPS * SECONDS
    side, scale = height // 32, height / HEIGHT  # of the squares of the ground
    squares = rng.integers(0, 256, (height // side + 1, (width + count) // side + 2, 3))
    wide = np.kron(squares, np.ones((side, side, 1)))[:height]
    y, x = np.mgrid[:height, :width]
    places, speeds = rng.uniform(0, width, (6, 2)), rng.uniform(-4, 4, (6, 2)) * scale
    frames = np.empty((count, height, width, 3), np.uint8)
    for t in range(count):
        frame = wide[:, t : t + width] + rng.normal(0, 4, (height, width, 1))
        for disc, (place, speed) in enumerate(zip(places, speeds, strict=True)):
            top, left = (place + speed * t) % (height, width)
            inside = (y - top) ** 2 + (x - left) ** 2 < ((12 + 6 * disc) * scale) ** 2
            frame[inside] = (40 * disc, 255 - 40 * disc, 90)
        frames[t] = frame.clip(0, 255)
    return frames


def ours(path: str, indices: np.ndarray) -> np.ndarray:
    with open_video(VideoFile(path)) as video:
        return video.read(indices, 3)


def full_decode(path: str, indices: np.ndarray) -> np.ndarray:
    import av

    wanted, found = set(indices.tolist()), []
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
            if number == indices[-1]:
                break
    return np.stack(found)


def opencv() -> Read:
    import cv2

    cv2.setNumThreads(1)

    def read(path: str, indices: np.ndarray) -> np.ndarray:
        options = [cv2.CAP_PROP_N_THREADS, 1]
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, options)
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(indices[0]))
        found = []
        for number in range(indices[0], indices[-1] + 1):
            capture.grab()
            if number in indices:
                found.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        capture.release()
        return np.stack(found)

    return read


def decord() -> Read:
    from decord import VideoReader, cpu

    return lambda path, indices: VideoReader(path, ctx=cpu(0), num_threads=1).get_batch(indices).asnumpy()


def readers() -> dict[str, Read]:
    """All that are installed."""
    found: dict[str, Read] = {"amd_jax": ours, "PyAV, full decode": full_decode}
    for name, make in (("OpenCV", opencv), ("decord", decord)):
        try:
            found[name] = make()
        except ImportError:
            print(f"{name} is not installed", file=sys.stderr)
    return found


def measure(path: str, clips: list[np.ndarray], rounds: int) -> dict[str, tuple[float, bool]]:
    """Clips a second of each reader (the median over rounds), and whether its frames are about ours."""
    found = readers()
    same = {}
    for name, read in found.items():  # also warms up
        expected = ours(path, clips[0]).astype(int)
        same[name] = float(np.abs(read(path, clips[0]) - expected).mean()) < 3  # other colour conversions
    rates: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds):
        names = list(found)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            for indices in clips:
                found[name](path, indices)
            rates[name].append(len(clips) / (time.perf_counter() - start))
    return {name: (statistics.median(rates[name]), same[name]) for name in found}


def about() -> str:
    """Machine, versions and commit, one line each."""
    from importlib.metadata import PackageNotFoundError, version

    import av

    lines = [f"{platform.machine()} {cpu_name()}, Python {platform.python_version()}"]
    for package in ("av", "opencv-python-headless", "decord", "numpy"):
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    lines.append(f"FFmpeg {av.ffmpeg_version_info}")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    return "\n".join([*lines, f"commit {commit}"])


def cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in text.splitlines() if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gop", type=int, nargs="+", default=[12, 30, 250], help="key frame intervals")
    parser.add_argument("--clips", type=int, default=12, help="clips in a round")
    parser.add_argument("--rounds", type=int, default=7, help="the table shows the median of so many")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(about())
    frames = moving(0)
    rng = np.random.default_rng(1)
    clips = [Strided(16, 4)(len(frames), rng)[0] for _ in range(args.clips)]
    with tempfile.TemporaryDirectory() as folder:
        for gop in args.gop:
            path = Path(folder, f"{gop}.mp4")
            path.write_bytes(encode(frames, FPS, gop=gop))
            print(f"\nkey frame every {gop} frames, {path.stat().st_size / 2**20:.1f} MiB: clips a second")
            for name, (rate, same) in measure(str(path), clips, args.rounds).items():
                print(f"  {name:20}{rate:8.1f}{'' if same else '   other frames'}")


if __name__ == "__main__":
    main()
