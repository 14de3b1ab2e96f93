"""How far a teacher's features are from those in float32: in bfloat16, and with its kernels in eight bits.

    python benchmarks/eight_bit_teacher.py --config=vitb_in1k [--weights=SOURCE] [--examples=8]

Each tapped layer of the config's teacher, over the tokens that it sees: the root mean square of the
difference over that of the features, in percent, and the least and the mean cosine of a token's features
with those in float32. Pictures are the embedded ones, enlarged to the config's size; in a clip they move.
Without --weights the teacher is random.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parents[1]))

from amd_jax.config import height_width
from amd_jax.config_files import load
from amd_jax.data.fashion import EmbeddedSource
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train.program import cast_teacher
from amd_jax.train.weights import load_teacher, with_teacher_pixels

# What the rest computes in, and how kernels are kept.
TYPES = (("bfloat16", ""), ("float32", "int8"), ("bfloat16", "int8"), ("float32", "fp8"), ("bfloat16", "fp8"))


def pictures(config: ConfigDict, examples: int) -> np.ndarray:
    """uint8 `[examples, frames, height, width, channels]`; a picture moves a pixel a frame."""
    height, width = height_width(config.data.image_size)
    source = EmbeddedSource("train")
    small = np.stack([np.asarray(source[i].content) for i in range(examples)])
    times = -(-max(height, width) // small.shape[1])
    large = small.reshape(*small.shape[:3], 1).repeat(times, 1).repeat(times, 2)[:, :height, :width]
    large = large.repeat(config.data.channels, -1)
    return np.stack([np.roll(large, t, 2) for t in range(config.data.frames)], 1)


def features(config: ConfigDict, params: Any, pixels: np.ndarray) -> dict[int, np.ndarray]:
    """The teacher's tapped layers as the step makes them, `[examples, tokens, width]`."""
    task = Pretraining.from_config(config)
    masks = task.masks(jax.random.key(0), 1)
    one = jax.jit(task.teacher_features)
    cast = jax.device_put(cast_teacher(config, params))
    each = [jax.device_get(one(cast, pixels[i : i + 1], masks)) for i in range(len(pixels))]
    return {layer: np.concatenate([f[layer] for f in each]).astype(np.float32) for layer in each[0]}


def row(have: np.ndarray, true: np.ndarray) -> str:
    """Relative error and cosines of features with the true ones."""
    error = np.sqrt(((have - true) ** 2).mean() / (true**2).mean())
    norms = np.linalg.norm(have, axis=-1) * np.linalg.norm(true, axis=-1)
    cosine = (have * true).sum(-1) / norms
    return f"{100 * error:9.3f} %   {cosine.min():.6f}   {cosine.mean():.6f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="of configs/, NAME[:ARGUMENT]")
    parser.add_argument("--weights", default="", help="of the teacher, as teacher.weights")
    parser.add_argument("--examples", type=int, default=8)
    args = parser.parse_args()
    name, _, argument = args.config.partition(":")
    config = load(name, argument) if argument else load(name)
    config.teacher.weights, config.model.attention = args.weights, "heads"
    config.model.dtype, config.teacher.dtype = "float32", ""
    config = with_teacher_pixels(config)
    task = Pretraining.from_config(config)
    key = jax.random.key(1)
    params = load_teacher(config, task) if args.weights else jax.device_get(jax.jit(task.init_frozen)(key))
    pixels = pictures(config, args.examples)
    true = features(config, params, pixels)
    print("computed in   kernels in   layer   RMS error   cosine, least   mean")
    for dtype, kept_as in TYPES:
        config.model.dtype, config.teacher.dtype = dtype, kept_as
        have = features(config, params, pixels)
        for layer, values in have.items():
            print(f"{dtype:<13} {kept_as or dtype:<12} {layer:>5} {row(values, true[layer])}", flush=True)


if __name__ == "__main__":
    main()
