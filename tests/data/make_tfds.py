"""Make tests/data/tfds/tiny_shapes, a prepared TFDS set of 24 + 8 small images; needs TensorFlow.

    python tests/data/make_tfds.py

`shape_image` is also what the tests expect to read back.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("tfds")
CLASSES = ("bar", "block", "ramp")
SIZES = {"train": 24, "test": 8}


def shape_image(split: str, index: int) -> np.ndarray:
    """Image `index` of `split`, uint8 [16, 20, 3]; its label is index % 3 and its corner tells the index."""
    image = np.zeros((16, 20, 3), np.uint8)
    color = np.array([40 + 8 * index, 200 if split == "train" else 100, 255 - 8 * index], np.uint8)
    match CLASSES[index % 3]:
        case "bar":
            image[:, 4:8] = color
        case "block":
            image[4:12, 6:14] = color
        case "ramp":
            image[:] = np.linspace(0, color, 20).astype(np.uint8)
    image[0, 0] = index
    return image


def main() -> None:
    import tensorflow_datasets as tfds

    def examples(split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(SIZES[split]):
            yield index, {"image": shape_image(split, index), "label": index % 3}

    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_shapes",
        version="1.0.0",
        data_dir=FOLDER,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
            }
        ),
        split_datasets={split: list(examples(split)) for split in SIZES},
        file_format="array_record",
        disable_shuffling=True,
    )


if __name__ == "__main__":
    main()
