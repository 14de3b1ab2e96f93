"""The names of the released code: MAE, DMAE, VideoMAE, AMD; and timm, whose ViT MAE's is.

Image models have no prefix (`blocks.0…`, `decoder_blocks.0…`); video models in pre-training have
(`encoder.blocks.0…`, `decoder.blocks.0…`), fine-tuned ones have none. timm has CLIP, SigLIP and DINOv2 under
the names of its ViT, and DINOv3 under those of its EVA.
"""

from amd_jax.convert.names.entries import (
    Entry,
    Parts,
    blocks,
    linear,
    norm,
    packed_gate,
    patch_embed,
    patch_positions,
    positions,
    same,
    token,
)
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS


def table(parts: Parts) -> list[Entry]:
    """Everything that there may be."""
    video_pretraining = parts.video and parts.pretrain
    prefix = "encoder." if video_pretraining else ""
    table = positions if parts.cls_row else patch_positions
    out = [
        *(packed_gate("encoder/blocks/layers/mlp", "blocks.{}.mlp.fc1") if parts.packed else []),
        *patch_embed(f"{prefix}patch_embed.proj", parts),
        token("encoder/cls_token", f"{prefix}cls_token"),
        table(ENCODER_POSITIONS, f"{prefix}pos_embed"),
        *blocks("encoder/blocks", f"{prefix}blocks"),
        *norm("encoder/norm", f"{prefix}norm"),
        *norm("fc_norm", "fc_norm"),
        *linear("head", "head"),
    ]
    if not parts.video:
        out += _of_teachers()
    if parts.pretrain:
        out += _video_decoder() if parts.video else _image_decoder()
    heads = "encoder.projection_heads" if video_pretraining else "aligned_feature_projection_heads"
    for i in range(parts.projections):
        out += linear(f"projection_{i}", f"{heads}.{i}") if not parts.mlps else []
        for j in range(parts.mlps):  # one MLP, or a sequence of them
            theirs = f"{heads}.{i}" if parts.mlps == 1 else f"{heads}.{i}.{j}"
            for layer in ("fc1", "fc2"):
                out += linear(f"projection_{i}/mlp_{j}_{layer}", f"{theirs}.{layer}")
    for i in range(parts.generators):
        out.append(token(f"generator_{i}/mask_token", f"generator_mask_tokens.{i}"))
        out += blocks(f"generator_{i}/blocks", f"generators.{i}.blocks")
    return out


def _of_teachers() -> list[Entry]:
    """What timm's CLIP, DINOv2 and DINOv3 have beside a ViT's parts, or have under another name."""
    a, b = "encoder/blocks/layers", "blocks.{}"
    return [
        positions("encoder/registers", "reg_token"),
        *norm("encoder/pre_norm", "norm_pre"),
        *(same(f"{a}/scale{i}", f"{b}.{name}") for i in (1, 2) for name in (f"ls{i}.gamma", f"gamma_{i}")),
        *linear(f"{a}/mlp/gate", f"{b}.mlp.fc1_g"),
        *linear(f"{a}/mlp/fc1", f"{b}.mlp.fc1_x"),
    ]


def _image_decoder() -> list[Entry]:
    return [
        *linear("decoder_embed", "decoder_embed"),
        token("decoder/mask_token", "mask_token"),
        positions(DECODER_POSITIONS, "decoder_pos_embed"),
        *blocks("decoder/blocks", "decoder_blocks"),
        *norm("decoder_norm", "decoder_norm"),
        *linear("decoder_pred", "decoder_pred"),
    ]


def _video_decoder() -> list[Entry]:
    return [
        *linear("decoder_embed", "encoder_to_decoder"),
        token("decoder/mask_token", "mask_token"),
        *blocks("decoder/blocks", "decoder.blocks"),
        *norm("decoder_norm", "decoder.norm"),
        *linear("decoder_pred", "decoder.head"),
    ]
