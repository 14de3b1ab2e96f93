"""From a description of weights to the model that they belong to."""

from collections.abc import Sequence

from amd_jax.config import ConfigError
from amd_jax.convert.arch import Arch, Stack
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.student import AlignConfig, DecoderConfig, Student
from amd_jax.models.vit import ViTConfig

Layers = Sequence[int]


def block(stack: Stack) -> BlockConfig:
    """The blocks of a stack."""
    return BlockConfig(stack.width, stack.heads, stack.mlp_width, stack.qkv_bias, stack.norm_eps)


def encoder(arch: Arch) -> ViTConfig:
    """The encoder."""
    return ViTConfig(block(arch.encoder), arch.encoder.depth, arch.grid, arch.cls_token, arch.positions)


def student(arch: Arch, align: AlignConfig | None = None) -> Student:
    """The pre-training model; `align` is needed for its projections and generators.

    Raises:
      ConfigError: no decoder, or one with a position table of its own.
    """
    d = arch.decoder
    if d is None or d.positions == "learned":
        raise ConfigError(f"no decoder with fixed positions in it, but {arch.task} weights")
    decoder = DecoderConfig(block(d.stack), d.stack.depth, d.positions, d.embed_bias, d.norm_eps)
    return Student(encoder(arch), decoder, align)


def align(arch: Arch, direct: tuple[Layers, Layers], gen: tuple[Layers, Layers] = ((), ())) -> AlignConfig:
    """The alignment of (student layers, teacher layers), counted from 1.

    Raises:
      ConfigError: the weights have no projections.
    """
    a = arch.align
    if a is None:
        raise ConfigError("no projection heads in it")
    assert arch.decoder is not None
    return AlignConfig(
        a.teacher_width,
        tuple(direct[0]),
        tuple(direct[1]),
        tuple(gen[0]),
        tuple(gen[1]),
        generator=block(a.generator) if a.generator else None,
        generator_depth=a.generator.depth if a.generator else 2,
        positions=arch.decoder.positions,
        projection_bias=a.projection_bias,
        projection_mlps=a.mlps,
        cls_token=not arch.video and arch.cls_token,
    )


def classifier(arch: Arch) -> Classifier:
    """The fine-tuned model."""
    pool = "mean" if arch.fc_norm else "cls"
    return Classifier(encoder(arch), arch.classes, pool, arch.fc_norm_eps)
