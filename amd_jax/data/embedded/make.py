"""Make fashion_mnist.npz.xz from the four files of Fashion-MNIST, gzip-compressed or not.

    python -m amd_jax.data.embedded.make FOLDER [TARGET]

Kept are the first 1,000 training and the first 200 test images of each class, in their original order.
"""

import gzip
import io
import lzma
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).with_name("fashion_mnist.npz.xz")


def read_idx(folder: Path, name: str, header: int) -> np.ndarray:
    """The bytes of an IDX file after its header, as uint8 [N × item size]."""
    path = folder / f"{name}.gz"
    raw = gzip.decompress(path.read_bytes()) if path.exists() else (folder / name).read_bytes()
    return np.frombuffer(raw, np.uint8, offset=header)


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` examples of each class, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))


def make(folder: Path, target: Path = TARGET) -> None:
    """Read the original files in `folder` and write `target`."""
    arrays = {}
    for split, prefix, count in (("train", "train", 1000), ("eval", "t10k", 200)):
        images = read_idx(folder, f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 28, 28)
        labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte", 8)
        keep = first_of_each_class(labels, count)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[keep], labels[keep]
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)  # one pass of xz is smaller than npz's own deflate
    target.write_bytes(lzma.compress(packed.getvalue(), preset=9))


if __name__ == "__main__":
    make(Path(sys.argv[1]), *(Path(argument) for argument in sys.argv[2:]))
