"""What an image of a Hugging Face set costs to fetch in random order: `python -m benchmarks.hf_rows`.

Makes 3,000 JPEGs of 500×398 as Arrow (`save_to_disk`) and as parquet with row groups of 100 and 1000, in a
temporary folder, and reads 300 (60) of them. Needs the `datasets` library.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from amd_jax import config
from amd_jax.data import hf_sources, transforms
from amd_jax.data.sources import make_source

IMAGES, GROUPS = 3000, {"parquet100": 100, "parquet1000": 1000}


def photos(count: int) -> list[bytes]:
    """Smooth noise as JPEG; each again and again with other last bytes."""
    rng, out = np.random.default_rng(0), []
    for _ in range(40):
        small = Image.fromarray(rng.integers(0, 256, (50, 63, 3), np.uint8))
        buffer = io.BytesIO()
        small.resize((500, 398), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
        out.append(buffer.getvalue())
    return [out[i % len(out)] + str(i).encode() for i in range(count)]


def main() -> int:
    """Prints milliseconds; returns the exit code."""
    images = photos(IMAGES)
    print(f"{np.mean([len(image) for image in images]) / 1e3:.0f} KB an image")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    rows = {"image": [{"bytes": x, "path": None} for x in images], "label": [i % 2 for i in range(IMAGES)]}
    made = datasets.Dataset.from_dict(rows, features)
    order = np.random.default_rng(1).permutation(IMAGES)
    with tempfile.TemporaryDirectory() as root:
        made.save_to_disk(Path(root) / "arrow")
        for name, size in GROUPS.items():
            (Path(root) / name).mkdir()
            made.to_parquet(Path(root) / name / "train.parquet", batch_size=size)
        for name in ("arrow", *GROUPS):
            data = config.default().data
            data.update({"source": "hf", "path": str(Path(root) / name)})
            source, some = make_source(data, "train"), order[: 60 if name == "parquet1000" else 300]
            # Three groups would all be kept.
            hf_sources.KEPT_GROUPS = 1 if name == "parquet1000" else 4
            began = time.perf_counter()
            for index in some.tolist():
                content = source[index].content
            print(f"{name}: {(time.perf_counter() - began) / len(some) * 1e3:.2f} ms an image")
    began = time.perf_counter()
    for _ in range(30):
        transforms.decode(content, 3)
    print(f"decoding: {(time.perf_counter() - began) / 30 * 1e3:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
