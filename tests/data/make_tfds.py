"""Make the prepared TFDS sets of tests/data/tfds, which needs TensorFlow: 24 + 8 images, 12 + 4 videos.

    python tests/data/make_tfds.py

`shape_image` and `shape_video` are also what the tests expect to read back.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).with_name("tfds")
CLASSES = ("bar", "block", "ramp")
SIZES = {"train": 24, "test": 8}
VIDEOS = {"train": 12, "test": 4}


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


def shape_video(split: str, index: int) -> np.ndarray:
    """Video `index` of `split`, uint8 [2 + index % 3, 16, 20, 3]: its image, a pixel further each frame."""
    image = shape_image(split, index)
    return np.stack([np.roll(image, shift, axis=1) for shift in range(2 + index % 3)])


def store(
    name: str, content: str, feature: Any, make: Callable[[str, int], Any], sizes: dict[str, int]
) -> None:
    """Write the set `name` of the features `content` and `label`."""
    import tensorflow_datasets as tfds

    def examples(split: str) -> list[tuple[int, dict[str, Any]]]:
        return [(i, {content: make(split, i), "label": i % 3}) for i in range(sizes[split])]

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=FOLDER,
        features=tfds.features.FeaturesDict(
            {content: feature, "label": tfds.features.ClassLabel(names=list(CLASSES))}
        ),
        split_datasets={split: examples(split) for split in sizes},
        file_format="array_record",
        disable_shuffling=True,
    )


def main() -> None:
    from tensorflow_datasets import features

    image = features.Image(shape=(None, None, 3), encoding_format="png")
    store("tiny_shapes", "image", image, shape_image, SIZES)
    # As ucf101 has them: so many frames, each an encoded image.
    video = features.Video(shape=(None, 16, 20, 3), encoding_format="png")
    store("tiny_clips", "video", video, shape_video, VIDEOS)


if __name__ == "__main__":
    main()
