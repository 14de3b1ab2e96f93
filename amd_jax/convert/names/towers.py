"""transformers' names for the image towers of CLIP and SigLIP, and for DINOv2 and DINOv3; only read."""

import dataclasses
import re

from amd_jax.convert.names.entries import (
    Entry,
    Parts,
    equal,
    linear,
    norm,
    packed_gate,
    patch_embed,
    positions,
    same,
    separate_qkv,
    token,
)
from amd_jax.convert.network import ENCODER_POSITIONS


@dataclasses.dataclass(frozen=True)
class Names:
    """What a family calls its parts; those of a block come after `layers` and its number."""

    patch: str
    layers: str
    norms: tuple[str, str]
    qkv: tuple[str, str, str]
    proj: str
    mlp: tuple[str, str, str]  # the gate of a SwiGLU, the layer that it gates, the last one
    norm: str
    packed: tuple[str, str] = ("", "")  # gate and the layer that it gates in one; the last layer


_CLIP = Names(
    patch="embeddings.patch_embedding",
    layers="encoder.layers",
    norms=("layer_norm1", "layer_norm2"),
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    proj="self_attn.out_proj",
    mlp=("", "mlp.fc1", "mlp.fc2"),
    norm="post_layernorm",
)
_DINOV2 = Names(
    patch="embeddings.patch_embeddings.projection",
    layers="encoder.layer",
    norms=("norm1", "norm2"),
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    proj="attention.output.dense",
    mlp=("", "mlp.fc1", "mlp.fc2"),
    norm="layernorm",
    packed=("mlp.weights_in", "mlp.weights_out"),
)
_DINOV3 = Names(
    patch="embeddings.patch_embeddings",
    layers="layer",
    norms=("norm1", "norm2"),
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    proj="attention.o_proj",
    mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    norm="norm",
)
# The layouts of kinds.py.
FAMILIES = {"hf_clip": _CLIP, "hf_siglip": _CLIP, "hf_dinov2": _DINOV2, "hf_dinov3": _DINOV3}


def layout(names: set[str]) -> str:
    """The family that the names of a file are of, as `inner_name` leaves them; or an empty string."""
    if f"{_CLIP.patch}.weight" in names:
        return "hf_clip" if "embeddings.class_embedding" in names else "hf_siglip"
    if f"{_DINOV3.patch}.weight" in names:
        return "hf_dinov3"
    return "hf_dinov2" if "encoder.layer.0.layer_scale1.lambda1" in names else ""


def inner_name(name: str) -> str:
    """A name without what says that the tower is part of a larger model."""
    return re.sub(r"^(vision_model|dinov2|dinov2_with_registers)\.", "", name)


def table(family: str, parts: Parts) -> list[Entry]:
    """Everything that there may be."""
    n = FAMILIES[family]
    a, b = "encoder/blocks/layers", f"{n.layers}.{{}}"
    gate, first, last = n.mlp
    if parts.packed:
        mlp = packed_gate(f"{a}/mlp", f"{b}.{n.packed[0]}")
        last = n.packed[1]
    else:
        mlp = linear(f"{a}/mlp/fc1", f"{b}.{first}")
        mlp += linear(f"{a}/mlp/gate", f"{b}.{gate}") if gate else []
    return [
        *patch_embed(n.patch, parts),
        same("encoder/cls_token", "embeddings.class_embedding"),
        token("encoder/cls_token", "embeddings.cls_token"),
        positions("encoder/registers", "embeddings.register_tokens"),
        equal(ENCODER_POSITIONS, "embeddings.position_embedding.weight"),
        positions(ENCODER_POSITIONS, "embeddings.position_embeddings"),
        *norm("encoder/pre_norm", "pre_layrnorm"),  # spelt so
        *norm(f"{a}/norm1", f"{b}.{n.norms[0]}"),
        separate_qkv(f"{a}/attn/qkv", tuple(f"{b}.{name}" for name in n.qkv)),
        *(same(f"{a}/attn/{q}_bias", f"{b}.{name}.bias") for q, name in zip("qkv", n.qkv, strict=True)),
        *linear(f"{a}/attn/proj", f"{b}.{n.proj}"),
        *(same(f"{a}/scale{i}", f"{b}.layer_scale{i}.lambda1") for i in (1, 2)),
        *norm(f"{a}/norm2", f"{b}.{n.norms[1]}"),
        *mlp,
        *linear(f"{a}/mlp/fc2", f"{b}.{last}"),
        *norm("encoder/norm", n.norm),
    ]
