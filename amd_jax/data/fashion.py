"""A small set of images that comes with the code: a part of Fashion-MNIST."""

import functools
import io
import lzma
from pathlib import Path

import numpy as np

from amd_jax.data.example import Example
from amd_jax.data.folders import Split
from amd_jax.errors import ConfigError


class EmbeddedSource:
    """10,000 training and 2,000 test images of Fashion-MNIST, [28, 28] grey, 10 classes of equal size."""

    num_classes = 10
    class_names: tuple[str, ...] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def __init__(self, split: Split, name: str = "") -> None:
        if name:
            raise ConfigError(
                f"data.{split}_split={name!r}: the embedded set has fixed splits; leave it empty"
            )
        self._split = split
        arrays = _embedded_arrays()
        self._images, self.labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]

    def __reduce__(self) -> tuple[type, tuple[Split]]:
        return EmbeddedSource, (self._split,)  # a reader process unpacks the file itself

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return Example(self._images[index], self.label(index))

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def describe(self, index: int) -> str:
        return f"embedded {self._split} image {index}"


@functools.cache
def _embedded_arrays() -> dict[str, np.ndarray]:
    """{train, eval}_images [N, 28, 28] and _labels [N], uint8; unpacking takes about 0.4 s, once."""
    packed = Path(__file__).with_name("embedded") / "fashion_mnist.npz.xz"
    with np.load(io.BytesIO(lzma.decompress(packed.read_bytes()))) as arrays:
        return dict(arrays)
