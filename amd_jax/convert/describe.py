"""The model that a tree of parameters belongs to: sizes are read off its shapes, the rest are facts.

A fact is what weights cannot show. Facts are stated by whoever imports, by config.json, by our own metadata
or by a run's config, under these names: "heads", "decoder_heads", "generator_heads", "grid", "patch",
"channels", "video", "norm_eps", "decoder_norm_eps", "fc_norm_eps", "positions", "decoder_positions",
"embed_bias", "mlp", "rope_theta", "antialias".
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from amd_jax.convert import guesses
from amd_jax.convert.facts import Facts
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Network, Shape, Triple, times
from amd_jax.errors import WeightsError
from amd_jax.models import build
from amd_jax.models.blocks import ACTIVATIONS, BlockConfig
from amd_jax.models.student import AlignConfig, DecoderConfig
from amd_jax.models.vit import ViTConfig


def of_json(data: Mapping[str, Any]) -> Facts:
    """What a description by `Network.to_json` says, but for its guesses.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: not what `to_json` wrote, or no size that a model has.
    """
    facts = {name: data[name] for name in ("channels", "positions", "video", "fc_norm_eps")}
    facts |= {name: tuple(int(n) for n in data[name]) for name in ("grid", "patch")}
    facts |= {name: data["encoder"][name] for name in ("heads", "norm_eps")}
    facts |= {name: data[name] for name in ("mlp", "rope_theta", "antialias") if name in data}
    if d := data["decoder"]:
        facts |= {f"decoder_{name}": d[name] for name in ("positions", "norm_eps")}
        facts |= {"decoder_heads": d["stack"]["heads"], "embed_bias": d["embed_bias"]}
    if data["align"] and data["align"]["generator"]:
        facts["generator_heads"] = data["align"]["generator"]["heads"]
    for name, fact in facts.items():
        if not _plausible(name, fact):
            raise ValueError(f"{name} is {fact!r}")
    return {name: fact for name, fact in facts.items() if name not in data["assumed"]}


def _plausible(name: str, fact: Any) -> bool:
    """A description is as little to be trusted as the rest of a file: no size may exhaust the machine."""
    if name in ("video", "embed_bias", "antialias"):
        return isinstance(fact, bool)
    if name == "mlp":
        return fact in (*ACTIVATIONS, "swiglu")
    if name.endswith("positions"):
        return fact in ("learned", "rotary", "sincos_1d", "sincos_2d")
    if name.endswith("norm_eps") or name == "rope_theta":
        return isinstance(fact, float) and fact > 0
    if name in ("grid", "patch"):
        return len(fact) == 3 and min(fact) > 0 and math.prod(fact) <= 10**6
    return isinstance(fact, int) and 0 < fact <= 10**6


def of_run(config: ConfigDict) -> Facts:
    """What the config of a run says of what it trained; heads are seen in our own parameters."""
    model, patch = build.student(config), build.patch(config)
    return {
        "patch": patch,
        "channels": len(config.data.mean),
        "video": patch[0] * model.encoder.grid[0] > 1,
        "grid": model.encoder.grid,
        "heads": model.encoder.block.heads,
        "norm_eps": model.encoder.block.norm_eps,
        "positions": model.encoder.positions,
        "decoder_heads": model.decoder.block.heads,
        "decoder_positions": model.decoder.positions,
        "generator_heads": model.align.generator.heads if model.align and model.align.generator else None,
    }


def describe(shapes: Mapping[str, Shape], facts: Facts, tables: Mapping[str, np.ndarray]) -> Network:
    """The model of a tree.

    Args:
      shapes: our names and shapes, of stacked layers; attention may lack the axis of its heads.
      facts: "patch", "channels" and "video" must be there.
      tables: the position tables in the file, `[(1 +) tokens, width]`, by our names.

    Raises:
      WeightsError: the tree is no ViT, or heads do not divide a width.
    """
    assumed: list[str] = []
    facts = {name: fact for name, fact in facts.items() if fact is not None}
    patch, video, eps = facts["patch"], facts["video"], facts.get("norm_eps", 1e-6)
    if _shape(shapes, "encoder/patch_embed/kernel")[0] != math.prod(patch) * facts["channels"]:
        raise WeightsError(f"its patch embedding does not fit patches of {times(patch)} and its channels")

    def stack(prefix: str, key: str, usual: int = 0) -> tuple[BlockConfig, int]:
        first = f"{prefix}/blocks/layers"
        depth, width = _shape(shapes, f"{first}/attn/qkv")[:2]
        mlp_width = _shape(shapes, f"{first}/mlp/fc1/kernel")[-1]
        bias = "".join(n for n in "qkv" if f"{first}/attn/{n}_bias" in shapes) or "none"
        if key not in facts:
            assumed.append(key)
        usual = usual or guesses.heads(width, image_decoder=prefix == "decoder" and not video)
        heads = facts.get(key, usual)
        if heads < 1 or width % heads:
            raise WeightsError(f"{heads} heads do not divide the width {width} of {prefix}")
        return BlockConfig(width, heads, mlp_width, bias, eps), depth

    def kind(name: str, key: str) -> str:
        if key not in facts and name in tables:
            return guesses.position_kind(tables[name], grid, cls_token)
        return facts.get(key, "sincos_1d" if video else "sincos_2d")

    block, depth = stack("encoder", "heads")
    layer = "encoder/blocks/layers"
    mlp = "swiglu" if f"{layer}/mlp/gate/kernel" in shapes else facts.get("mlp", "gelu")
    block = dataclasses.replace(block, mlp=mlp, layer_scale=f"{layer}/scale1" in shapes)
    cls_token = "encoder/cls_token" in shapes
    tokens = len(tables[ENCODER_POSITIONS]) - cls_token if ENCODER_POSITIONS in tables else None
    if "grid" not in facts and (tokens is None or video or math.isqrt(max(0, tokens)) ** 2 != tokens):
        assumed.append("grid")
    grid: Triple = facts["grid"] if "grid" in facts else guesses.grid(tokens, patch, video)
    decoder = align = None
    if "decoder_embed/kernel" in shapes:
        bias = facts.get("embed_bias", "decoder_embed/bias" in shapes)
        blocks, layers = stack("decoder", "decoder_heads")
        positions = kind(DECODER_POSITIONS, "decoder_positions")
        decoder = DecoderConfig(blocks, layers, positions, bias, _other(facts.get("decoder_norm_eps"), eps))
        align = _align(shapes, stack, positions, cls_token and not video)
    head = shapes.get("head/kernel", (0,))
    encoder = ViTConfig(
        block,
        depth,
        grid,
        cls_token,
        kind(ENCODER_POSITIONS, "positions"),
        registers=shapes.get("encoder/registers", (0,))[0],
        pre_norm="encoder/pre_norm/scale" in shapes,
        patch_bias="encoder/patch_embed/bias" in shapes,
        rope_theta=facts.get("rope_theta", 100.0),
    )
    return Network(
        encoder,
        patch,
        facts["channels"],
        video,
        norm="encoder/norm/scale" in shapes,
        decoder=decoder,
        align=align,
        classes=head[-1],
        fc_norm="fc_norm/scale" in shapes,
        fc_norm_eps=_other(facts.get("fc_norm_eps"), eps),
        assumed=tuple(assumed),
        antialias=facts.get("antialias", False),
    )


def _align(shapes: Mapping[str, Shape], stack: Any, positions: str, cls_token: bool) -> AlignConfig | None:
    """As many projections and generators as there are, all at the first layer: which ones, nobody says."""
    projections = len({name.split("/")[0] for name in shapes if name.startswith("projection_")})
    generators = len({name.split("/")[0] for name in shapes if name.startswith("generator_")})
    if not projections:
        return None
    mlps = len(
        [name for name in shapes if name.startswith("projection_0/mlp_") and name.endswith("fc1/kernel")]
    )
    width = _shape(shapes, "projection_0/mlp_0_fc1/kernel" if mlps else "projection_0/kernel")[-1]
    # One head for 64 features, as the published code has it at any width.
    generator, depth = (
        stack("generator_0", "generator_heads", max(1, width // 64)) if generators else (None, 2)
    )
    return AlignConfig(
        teacher_width=width,
        student_direct=(1,) * projections,
        teacher_direct=(1,) * projections,
        student_gen=(1,) * generators,
        teacher_gen=(1,) * generators,
        generator=generator,
        generator_depth=depth,
        positions="sincos_2d" if positions == "learned" else positions,
        projection_bias="projection_0/bias" in shapes or bool(mlps),
        projection_mlps=mlps,
        cls_token=cls_token,
    )


def _other(eps: float | None, usual: float) -> float | None:
    """An epsilon where it is not the blocks'."""
    return None if eps == usual else eps


def _shape(shapes: Mapping[str, Shape], name: str) -> Shape:
    if name not in shapes:
        raise WeightsError(f"no {name} in it, so it is no ViT of a known kind")
    return shapes[name]
