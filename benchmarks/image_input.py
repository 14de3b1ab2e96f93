"""How many training images a core makes of JPEG files, beside torchvision's loader, and what workers add.

    python benchmarks/image_input.py [--sizes 398x500 1200x1600] [--workers 1 2]

The recipe is MAE's: decode, random resized crop to 224 by Pillow's bicubic, flip. torchvision then makes a
normalised float tensor of it, which here is the device's work. Images look like photographs, and have as many
bytes a pixel as ImageNet's. One process, one core; the loaders take turns and CPU time is counted, so that
others on the machine matter little. Then a whole input pipeline with workers, by the clock. torchvision is
left out where it is not installed. Prints Markdown.
"""

import argparse
import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from released_step import machine

from amd_jax.data import reading, sampling, transforms
from amd_jax.data.pipeline import train_stream
from amd_jax.data.sources import make_source
from amd_jax.data.views import TrainViews
from configs import mae_vitb_in1k

IMAGES, CLASSES, SIZE = 32, 2, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(height: int, width: int, seed: int) -> bytes:
    """Noise with a photograph's spectrum, about 0.6 bytes a pixel."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    y, x = np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[None, :, None]
    pixels = np.fft.irfft2(spectrum / (np.hypot(y, x) + 1 / 300) ** 1.2, s=(height, width), axes=(0, 1))
    pixels = (pixels / pixels.std() * 50 + 120).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()


def config(folder: Path, **data: Any) -> Any:
    """MAE's for ImageNet, of the images in `folder`."""
    made = mae_vitb_in1k.get_config()
    made.data.update({"source": "folder", "path": str(folder), "workers": 0, **data})
    made.batch_size = 64
    return made


def ours(folder: Path, jpeg: str) -> Callable[[int], np.ndarray]:
    """One example by its number; `data.jpeg`."""
    data = config(folder, jpeg=jpeg).data
    views = TrainViews.from_config(data)
    least = views.least_scale if jpeg == "reduced" else None
    reader = reading.Reader(make_source(data, "train"), 3, sampling.Strided(1, 1), least)
    return lambda number: views(reader.read(number % IMAGES, (number,))[0], (number,))


def torchvisions(folder: Path) -> Callable[[int], Any]:
    """As in MAE's main_pretrain.py."""
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import InterpolationMode

    torch.set_num_threads(1)  # as in the workers of its DataLoader
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, (0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = ImageFolder(f"{folder}/train", recipe)
    return lambda number: images[number % IMAGES]


def difference(folder: Path) -> str:
    """Of the largest square that begins at the corner, seen at 224: decoded reduced, and exactly."""
    off = []
    for file in folder.rglob("*.jpg"):
        whole = transforms.decode(file.read_bytes(), 3)
        side = min(whole.shape[:2])
        less = transforms.decode(file.read_bytes(), 3, lambda height, width: SIZE / min(height, width))
        part = side * len(less) // len(whole)
        exact, reduced = transforms.resize(whole[:side, :side], SIZE, SIZE), less[:part, :part]
        off.append(abs(exact.astype(float) - transforms.resize(reduced, SIZE, SIZE)))
    return f"{np.mean(off):.2f} on average, 99 % by at most {np.percentile(off, 99):.0f}"


def rates(loaders: dict[str, Callable[[int], Any]], rounds: int) -> dict[str, list[float]]:
    """Images a second of CPU time, of each loader in every round."""
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for turn, (name, load) in itertools.product(range(rounds), loaders.items()):
        began = time.process_time()
        for number in range(IMAGES):
            load(turn * IMAGES + number)
        found[name].append(IMAGES / (time.process_time() - began))
    return found


def with_workers(folder: Path, workers: int, batches: int = 24) -> float:
    """Images a second by the clock, after the first batches."""
    made = config(folder, workers=workers)
    source, place = make_source(made.data, "train"), {"process_index": 0, "process_count": 1}
    with train_stream(made, source, start_step=0, **place) as stream:
        for _ in range(4):
            next(stream)
        began = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return batches * made.batch_size / (time.perf_counter() - began)


def one_core(sizes: Sequence[str], rounds: int) -> None:
    """The first table."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    titles = ("image", "loader", "images/s of a core, median (all)", "times torchvision's", "off by, of 255")
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = written(Path(place), size)
            loaders: dict[str, Callable[[int], Any]] = {}
            try:
                loaders["torchvision"] = torchvisions(folder)
            except ImportError:
                print("torchvision is not installed")
            loaders |= {f"data.jpeg={jpeg}": ours(folder, jpeg) for jpeg in ("exact", "reduced")}
            rates(loaders, 1)
            found = rates(loaders, rounds)
            theirs = statistics.median(found.get("torchvision", [float("nan")]))
            for name, figures in found.items():
                middle = statistics.median(figures)
                pixels = difference(folder) if name.endswith("reduced") else ""
                spread = f"{middle:.0f} ({min(figures):.0f} to {max(figures):.0f})"
                print(f"| {size} | {name} | {spread} | {middle / theirs:.2f} | {pixels} |", flush=True)
    os.sched_setaffinity(0, cores)


def written(folder: Path, size: str) -> Path:
    """`IMAGES` files of this size, in class folders."""
    height, width = map(int, size.split("x"))
    for number in range(IMAGES):
        file = folder / "train" / str(number % CLASSES) / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photograph(height, width, number))
    return folder


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["398x500", "1200x1600"], help="height x width")
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(machine())
    one_core(args.sizes, args.rounds)
    with tempfile.TemporaryDirectory() as place:
        folder = written(Path(place), args.sizes[0])
        print("\n| workers | images a second, by the clock |\n|---|---|")
        for workers in args.workers:
            print(f"| {workers} | {with_workers(folder, workers):.0f} |", flush=True)


if __name__ == "__main__":
    main()
