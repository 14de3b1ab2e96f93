"""What the formats that hold a whole program have in common: from uint8 pixels to one output."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from amd_jax.convert import forward
from amd_jax.convert.account import Row
from amd_jax.convert.files.stated import usual
from amd_jax.convert.files.tensors import Arrays
from amd_jax.convert.formats.subject import Subject, Write, as_json
from amd_jax.convert.network import Network
from amd_jax.errors import WeightsError
from amd_jax.trees import flatten, nest

ABOUT = "model.json"
INPUT = "pixels"
_IMAGE = """\
image = Image.open("image.jpg").convert("{mode}")
width, height = image.size
{resize}
left, top = round((width - {w}) / 2), round((height - {h}) / 2)
pixels = np.asarray(image.crop((left, top, left + {w}, top + {h}))){channels}
"""
_COVERING = """\
if height * {w} <= width * {h}:
    width, height = max({w}, int({h} * width / height)), {h}
else:
    width, height = {w}, max({h}, int({w} * height / width))
image = image.resize((width, height), Image.Resampling.{filter})"""
_BOTH_SIDES = """\
width, height = {w}, {h}
image = image.resize((width, height), Image.Resampling.{filter})"""


@dataclasses.dataclass(frozen=True)
class Program:
    """A function with its weights.

    Attributes:
      call: from `weights` and uint8 pixels [batch, H, W, C], of videos [batch, T, H, W, C], to the output.
      weights: our names to float32 arrays.
      shape: of one input.
      output: its name.
      about: what `ABOUT` says: input, output, preprocessing, classes.
    """

    call: Callable[[dict[str, Any], jax.Array], jax.Array]
    weights: Arrays
    shape: tuple[int, ...]
    output: str
    about: dict[str, Any]

    @property
    def json(self) -> Write:
        """Writes `ABOUT`."""
        return as_json(self.about)


def cut(network: Network) -> Network:
    """The encoder and the head of a classifier."""
    return forward.without_pretraining(network)


def make(subject: Subject) -> Program:
    """The program of an output; every weight becomes a row.

    Raises:
      WeightsError: logits of weights without a head.
    """
    network, said = subject.network, subject.said
    output = subject.output or ("logits" if network.classes else "embedding")
    if output == "logits" and not network.classes:
        raise WeightsError("--output=logits: these weights have no classes; there are embedding and tokens")
    mean, std = said.mean, said.std
    if not mean:
        mean, std = usual(network.channels)
        subject.note(f"nobody says mean and std of the pixels: {list(mean)} and {list(std)} are assumed")
    weights = {name: np.asarray(x) for name, x in flatten(forward.parameters(subject.found, output)).items()}
    for name, array in subject.found.arrays.items():
        if name in weights:
            subject.rows.append(Row("used", name, "", array.shape))
        else:
            subject.rows.append(Row("dropped", name, "", array.shape, f"{output} need none of it"))
    compute = forward.make(network, output, mean, std)
    frames = network.encoder.grid[0] * network.patch[0]
    shape = (*([frames] if frames > 1 else []), *said.size, network.channels)

    def call(weights: dict[str, Any], pixels: jax.Array) -> jax.Array:
        return compute(nest(weights), pixels if frames > 1 else pixels[:, None])

    made = jax.eval_shape(call, weights, jax.ShapeDtypeStruct((1, *shape), np.uint8)).shape[1:]
    return Program(call, weights, shape, output, _about(subject, output, shape, made, mean, std))


def _about(
    subject: Subject,
    output: str,
    shape: tuple[int, ...],
    made: tuple[int, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Any]:
    said, run = subject.said, subject.found.source.run
    video = len(shape) == 4
    layout = "batch, frame, height, width, channel" if video else "batch, height, width, channel"
    sampling = {"sampling": run.data.sampling, "stride": run.data.stride} if video and run else {}
    return {
        "input": {"name": INPUT, "type": "uint8", "shape": ["batch", *shape], "layout": layout},
        "output": {"name": output, "type": "float32", "shape": ["batch", *made]},
        "preprocessing": {
            "colour": "grey" if shape[-1] == 1 else "RGB",
            **sampling,
            "resize": list(said.before_crop(subject.network.size)),
            "interpolation": said.interpolation,
            "crop": list(said.size),
        },
        "normalisation_inside": {"mean": list(mean), "std": list(std)},
        "classes": list(said.classes),
    }


def preparing(program: Program) -> str:
    """Python that makes `pixels` as the program wants them, without its batch."""
    h, w, channels = program.shape[-3:]
    if len(program.shape) == 4:
        return f'pixels = np.load("frames.npy")  # uint8 {json.dumps(program.shape)}: a clip\n'
    steps = program.about["preprocessing"]
    resize, how = steps["resize"], steps["interpolation"].upper()
    if len(resize) == 1:
        rows, columns = (round(side * resize[0] / min(h, w)) for side in (h, w))
        resized = _COVERING.format(h=rows, w=columns, filter=how)
    else:
        resized = _BOTH_SIDES.format(h=max(resize[0], h), w=max(resize[1], w), filter=how)
    mode, last = ("L", "[..., None]") if channels == 1 else ("RGB", "")
    return _IMAGE.format(mode=mode, resize=resized, h=h, w=w, channels=last)
