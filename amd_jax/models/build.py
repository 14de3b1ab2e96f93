"""From a config to the networks: the one reader of the model's config keys."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.config import height_width
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.masking import visible_count
from amd_jax.models.sizes import SIZES
from amd_jax.models.student import AlignConfig, DecoderConfig, Student
from amd_jax.models.vit import ViT, ViTConfig


def patch(config: ConfigDict) -> tuple[int, int, int]:
    """Frames, height and width of a token in pixels."""
    return config.model.tubelet, config.model.patch_size, config.model.patch_size


def teacher_patch(config: ConfigDict) -> tuple[int, int, int]:
    """The same of the teacher's tokens, which are as many as the student's and lie where those do."""
    side = config.teacher.patch_size or config.model.patch_size
    return config.model.tubelet, side, side


def grid(config: ConfigDict) -> tuple[int, int, int]:
    """Tokens along (time, height, width)."""
    height, width = (side // config.model.patch_size for side in height_width(config.data.image_size))
    return config.data.frames // config.model.tubelet, height, width


def visible(config: ConfigDict) -> tuple[int, int]:
    """Positions of a frame that student and teacher see: the same ones, unless the method says otherwise."""
    _, height, width = grid(config)

    def count(who: str) -> int:
        given = config.mask[f"{who}_visible"]
        ratio = config.mask[f"{who}_ratio"]
        return given or visible_count(height * width, ratio, config.mask.floor)

    student = count("student")
    return student, count("teacher") if methods.of(config).sees_more else student


def compute_dtype(config: ConfigDict) -> Any:
    """The type the networks compute in; "auto", which no program has, is float32: for shapes alone."""
    name = config.model.dtype
    return jnp.dtype("float32" if name == "auto" else name)


def encoder(config: ConfigDict, who: str) -> ViTConfig:
    """The encoder of `who`, "student" or "teacher", at its full depth.

    With `data.frames` above 1 its patch embedding starts as VideoMAE's does, for an image as MAE's.
    """
    keys = config[who]
    size = SIZES[keys.size]
    width = keys.width or size.width
    dtype, residual = compute_dtype(config), config.model.residual
    block = BlockConfig(
        width=width,
        heads=keys.heads or size.heads,
        # A width of one's own gets the usual MLP; the size's MLP belongs to the size's width.
        mlp_width=4 * width if keys.width else size.mlp_width,
        qkv_bias=keys.qkv_bias,
        dtype=dtype,
        residual=dtype if residual == "auto" else jnp.dtype(residual),
        attention="xla" if config.model.attention == "auto" else config.model.attention,
        remat=config.model.remat,
        unroll=config.model.unroll,
    )
    more: dict[str, Any] = {}
    if who == "teacher":
        in_blocks = {name: keys[name] for name in ("mlp", "layer_scale", "norm_eps")}
        block = dataclasses.replace(block, **in_blocks, frozen=True, kept_as=keys.dtype)
        more = {name: keys[name] for name in ("registers", "pre_norm", "patch_bias", "rope_theta")}
    return ViTConfig(
        block,
        keys.depth or size.depth,
        grid(config),
        keys.cls_token,
        keys.positions,
        patch_init="uniform" if config.data.frames > 1 else "xavier",
        **more,
    )


def student(config: ConfigDict) -> Student:
    """The student with everything its method trains."""
    enc = encoder(config, "student")
    # Decoder and generators have fixed tables even where the encoder learns its own.
    fixed = "sincos_2d" if enc.positions == "learned" else enc.positions
    d = config.decoder
    block = dataclasses.replace(enc.block, width=d.width, heads=d.heads, mlp_width=4 * d.width)
    decoder = DecoderConfig(block, d.depth, fixed, d.embed_bias)
    return Student(enc, decoder, _align(config, enc, fixed))


def teacher(config: ConfigDict) -> ViT | None:
    """The teacher, cut after its last aligned layer and without the final norm; None without distillation."""
    align = student(config).align
    if align is None:
        return None
    full = encoder(config, "teacher")
    return ViT(dataclasses.replace(full, depth=max(align.teacher_layers)), final_norm=False)


def classifier(config: ConfigDict, who: str, classes: int) -> Classifier:
    """The encoder of `who` with a head for `classes`."""
    f = config.finetune
    pool = f.pool if who == "student" else f.teacher_pool
    return Classifier(encoder(config, who), classes, pool, head_std=f.head_std)


def _align(config: ConfigDict, enc: ViTConfig, fixed: str) -> AlignConfig | None:
    method = methods.of(config)
    if method.teacher != "features":
        return None
    t = encoder(config, "teacher").block
    layers = (tuple(config.align.student_layers), tuple(config.align.teacher_layers))
    direct = layers if config.loss.direct_weight else ((), ())
    sees_more = visible(config)[1] > visible(config)[0]
    gen = layers if config.loss.gen_weight and sees_more else ((), ())
    generator = BlockConfig(
        width=t.width,
        heads=max(1, t.width // 64),
        mlp_width=4 * t.width,
        qkv_bias=enc.block.qkv_bias,
        dtype=t.dtype,
        residual=t.residual,
        attention=t.attention,
        remat=t.remat,
        unroll=t.unroll,
    )
    return AlignConfig(
        teacher_width=t.width,
        student_direct=direct[0],
        teacher_direct=direct[1],
        student_gen=gen[0],
        teacher_gen=gen[1],
        generator=generator,
        generator_depth=config.align.generator_depth,
        positions=fixed,
        projection_bias=config.align.projection == "linear_bias",
        projection_mlps={"mlp": 1, "mlp2": 2}.get(config.align.projection, 0),
        cls_token=method.aligns_cls,
    )
