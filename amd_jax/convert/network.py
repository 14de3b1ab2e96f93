"""A model of ours with what its weights do not show: what a file is found to be, and an export made of."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from amd_jax.errors import WeightsError
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.masking import Masks
from amd_jax.models.student import AlignConfig, DecoderConfig, Student
from amd_jax.models.vit import TEACHER_OPTIONS, ViT, ViTConfig, option
from amd_jax.trees import path_name

Shape = tuple[int, ...]
Triple = tuple[int, int, int]

# Our names of the position tables, which may be regenerated and are therefore often not in a file.
ENCODER_POSITIONS, DECODER_POSITIONS = "encoder/positions", "decoder/positions"


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder, and what stands on it.

    Attributes:
      patch: frames, height and width of a token.
      video: whether the patch embedding has a time axis in the published layout.
      norm: whether the encoder has a final norm.
      decoder: its positions may be "learned" here: a table of nobody's kind that the file brings along.
      align: as many layers as it has projections and generators; which ones, weights do not show.
      assumed: facts that the weights do not show and nobody stated, so that they are a guess:
        "heads", "decoder_heads", "generator_heads", "grid".
      antialias: whether its library interpolates learned positions antialiased (timm, DINOv2 with registers).
    """

    encoder: ViTConfig
    patch: Triple
    channels: int
    video: bool
    norm: bool = True
    decoder: DecoderConfig | None = None
    align: AlignConfig | None = None
    classes: int = 0
    fc_norm: bool = False
    fc_norm_eps: float | None = None
    assumed: tuple[str, ...] = ()
    antialias: bool = False

    @property
    def task(self) -> str:
        """What the weights can do: "pretrain", "classifier" or "encoder"."""
        return "pretrain" if self.decoder else "classifier" if self.classes else "encoder"

    @property
    def patch_values(self) -> int:
        """Numbers in a patch."""
        return math.prod(self.patch) * self.channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of a whole input."""
        return self.encoder.grid[1] * self.patch[1], self.encoder.grid[2] * self.patch[2]

    @property
    def rows(self) -> int:
        """Rows of a position table: the patch tokens of a whole input, and CLS."""
        return self.encoder.cls_token + self.encoder.tokens

    def student(self) -> Student:
        """The pre-training model.

        Raises:
          WeightsError: no decoder, or one with a position table of its own.
        """
        if self.decoder is None or self.decoder.positions == "learned":
            raise WeightsError(f"no decoder with fixed positions in it, but {self.task} weights")
        return Student(self.encoder, self.decoder, self.align)

    def classifier(self) -> Classifier:
        """The fine-tuned model; without classes, what its head would read."""
        return Classifier(
            self.encoder, self.classes, "mean" if self.fc_norm else "cls", 0.0, self.fc_norm_eps
        )

    def blocks(self, name: str) -> BlockConfig | None:
        """The blocks that a parameter belongs to, if it is one of a stack."""
        part, _, rest = name.partition("/blocks/layers/")
        if not rest:
            return None
        if part == "decoder" and self.decoder:
            return self.decoder.block
        return self.align.generator if part.startswith("generator_") and self.align else self.encoder.block

    def shapes(self) -> dict[str, Shape]:
        """Name and shape of every parameter: those of our models.

        Raises:
          WeightsError: no model has such sizes.
        """
        try:
            return dict(_shapes(dataclasses.replace(self, assumed=())))
        except (TypeError, ValueError, ZeroDivisionError) as error:
            why = str(error).strip().split("\n")[0][:200]
            raise WeightsError(f"its sizes do not fit together ({why})") from error

    def of_teachers(self) -> dict[str, Any]:
        """The encoder's options that no student has, by config key, where they are not the usual ones."""
        e, usual = self.encoder, ViTConfig(BlockConfig(0, 0, 0), 0, (0, 0, 0))
        rotary = {"positions": "rotary"} if e.positions == "rotary" else {}
        own = [name for name in TEACHER_OPTIONS if option(e, name) != option(usual, name)]
        return rotary | {name: option(e, name) for name in own}

    def cut_heads(self, name: str, x: np.ndarray) -> np.ndarray:
        """A parameter with its heads as an axis of their own, if it has any: a matter of the shape alone."""
        if (block := self.blocks(name)) is None or not name.endswith(("attn/qkv", "_bias")):
            return x
        lead = x.shape[:3] if name.endswith("qkv") else x.shape[:1]
        return x.reshape(*lead, block.heads, block.width // block.heads)

    def lines(self) -> list[str]:
        """The sizes, for people."""
        e, b, d, a = self.encoder, self.encoder.block, self.decoder, self.align
        out = [
            f"encoder: width {b.width}, depth {e.depth}, heads {b.heads}, mlp {b.mlp_width}, "
            f"qkv_bias {b.qkv_bias}, cls_token {e.cls_token}, positions {e.positions}, "
            f"patch {times(self.patch)}, grid {times(e.grid)}, norm_eps {b.norm_eps:g}"
        ]
        if more := [f"{name} {value}" for name, value in self.of_teachers().items()]:
            out.append(f"a teacher's: {', '.join(more)}")
        if d:
            sizes = f"width {d.block.width}, depth {d.depth}, heads {d.block.heads}"
            out.append(f"decoder: {sizes}, positions {d.positions}")
        if a:
            generators = f"{len(a.student_gen)} generators"
            out.append(
                f"alignment: {len(a.student_direct)} projections to width {a.teacher_width}, {generators}"
            )
        if self.classes:
            out.append(f"head: {self.classes} classes, pooling {'mean' if self.fc_norm else 'cls'}")
        if self.assumed:
            flags = ", ".join(f"--{name}" for name in self.assumed)
            guessed = ", ".join(sorted(self.assumed))
            out.append(f"assumed, because weights do not show it: {guessed}; {flags} sets it")
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file's metadata; `describe.of_json` reads of it what weights do not show."""
        e, d, a = self.encoder, self.decoder, self.align
        decoder = align = None
        if d:
            eps = d.norm_eps or d.block.norm_eps
            decoder = {"embed_bias": d.embed_bias, "positions": d.positions, "norm_eps": eps}
            decoder["stack"] = _block_json(d.block, d.depth)
        if a:
            align = {
                "teacher_width": a.teacher_width,
                "projections": max(len(a.student_direct), len(a.student_gen)),
                "projection_bias": a.projection_bias,
                "mlps": a.projection_mlps,
                "generators": len(a.student_gen),
                "generator": _block_json(a.generator, a.generator_depth) if a.generator else None,
            }
        return {
            "encoder": _block_json(e.block, e.depth),
            "patch": self.patch,
            "channels": self.channels,
            "grid": e.grid,
            "cls_token": e.cls_token,
            "positions": e.positions,
            "norm": self.norm,
            "video": self.video,
            "decoder": decoder,
            "align": align,
            "classes": self.classes,
            "fc_norm": self.fc_norm,
            "fc_norm_eps": self.fc_norm_eps or e.block.norm_eps,
            "assumed": self.assumed,
            "mlp": e.block.mlp,
            "rope_theta": e.rope_theta,
            "antialias": self.antialias,
        }


def times(numbers: tuple[int, ...]) -> str:
    """`(1, 14, 14)` as "1x14x14"."""
    return "x".join(map(str, numbers))


def parameter_shapes(model: nn.Module, values: int) -> dict[str, Shape]:
    """Name and shape of every parameter of an encoder, a classifier or a student, whatever they are.

    Args:
      model: its parameters do not depend on how many tokens it is given.
      values: numbers in a patch.
    """
    x, at = np.zeros((1, 1, values), np.float32), jnp.zeros((1, 1), jnp.int32)
    inputs: tuple[Any, ...] = (x, Masks(at, at, at)) if isinstance(model, Student) else (x, at)
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))["params"]
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): leaf.shape for path, leaf in leaves}


@functools.lru_cache(maxsize=32)
def _shapes(network: Network) -> dict[str, Shape]:
    """The model with a grid of one token, because a file's grid may be too large for its fixed tables."""
    one = dataclasses.replace(network.encoder, grid=(1, 1, 1), positions="learned")
    d = network.decoder
    if d:
        align = network.align and dataclasses.replace(network.align, positions="sincos_1d")
        model: nn.Module = Student(one, dataclasses.replace(d, positions="sincos_1d"), align)
    elif network.classes or network.fc_norm:
        model = dataclasses.replace(network, encoder=one).classifier()
    else:
        model = ViT(one, network.norm)
    out = parameter_shapes(model, network.patch_values)
    if isinstance(model, ViT):
        out = {f"encoder/{name}": shape for name, shape in out.items()}
    out = {name: shape for name, shape in out.items() if 0 not in shape}  # a head for no classes
    del out[ENCODER_POSITIONS]
    if network.encoder.positions == "learned":
        out[ENCODER_POSITIONS] = (network.rows, network.encoder.block.width)
    if d and d.positions == "learned":
        out[DECODER_POSITIONS] = (network.rows, d.block.width)
    return out


def _block_json(block: BlockConfig, depth: int) -> dict[str, Any]:
    names = ("width", "heads", "mlp_width", "qkv_bias", "norm_eps")
    return {"depth": depth} | {name: getattr(block, name) for name in names}
