"""Tables for the names of the released code: MAE, DMAE, VideoMAE, AMD; and timm, whose ViT MAE's is.

Image models have no prefix (`blocks.0…`, `decoder_blocks.0…`); video models in pre-training have
(`encoder.blocks.0…`, `decoder.blocks.0…`), fine-tuned ones have none.
"""

from amd_jax.convert.arch import Align, Arch
from amd_jax.convert.tables import Entry, blocks, linear, norm, patch_embed, same

# Our name of a position table, and theirs; it is not in the tables because it may be regenerated.
ENCODER_POSITIONS, DECODER_POSITIONS = "encoder/positions", "decoder/positions"


def table(arch: Arch) -> list[Entry]:
    """Everything but position tables."""
    if arch.video and arch.decoder:
        return _video_pretraining(arch)
    out = encoder(arch, "")
    if arch.decoder:
        d = arch.decoder
        out += linear("decoder_embed", "decoder_embed", d.embed_bias)
        out.append(same("decoder/mask_token", "mask_token", (1, 1, d.stack.width)))
        out += blocks("decoder/blocks", "decoder_blocks", d.stack)
        out += norm("decoder_norm", "decoder_norm") + linear("decoder_pred", "decoder_pred")
    if arch.align:
        out += _align(arch.align, "aligned_feature_projection_heads")
    if arch.fc_norm:
        out += norm("fc_norm", "fc_norm")
    return out + linear("head", "head") if arch.classes else out


def positions(arch: Arch) -> dict[str, str]:
    """Our position tables to theirs. A video's table is in the file only where it is learned."""
    if arch.video:
        return {ENCODER_POSITIONS: "encoder.pos_embed" if arch.decoder else "pos_embed"}
    out = {ENCODER_POSITIONS: "pos_embed"}
    return out | {DECODER_POSITIONS: "decoder_pos_embed"} if arch.decoder else out


def encoder(arch: Arch, prefix: str) -> list[Entry]:
    """The encoder below `prefix`, empty or ending in a dot."""
    out = patch_embed("encoder/patch_embed", f"{prefix}patch_embed.proj", arch)
    if arch.cls_token:
        out.append(same("encoder/cls_token", f"{prefix}cls_token", (1, 1, arch.encoder.width)))
    out += blocks("encoder/blocks", f"{prefix}blocks", arch.encoder)
    return out + norm("encoder/norm", f"{prefix}norm") if arch.norm else out


def _video_pretraining(arch: Arch) -> list[Entry]:
    assert arch.decoder is not None
    d = arch.decoder
    out = encoder(arch, "encoder.")
    out += linear("decoder_embed", "encoder_to_decoder", d.embed_bias)
    out.append(same("decoder/mask_token", "mask_token", (1, 1, d.stack.width)))
    out += blocks("decoder/blocks", "decoder.blocks", d.stack)
    out += norm("decoder_norm", "decoder.norm") + linear("decoder_pred", "decoder.head")
    return out + _align(arch.align, "encoder.projection_heads") if arch.align else out


def _align(align: Align, projections: str) -> list[Entry]:
    out = []
    for i in range(align.projections):
        if not align.mlps:
            out += linear(f"projection_{i}", f"{projections}.{i}", align.projection_bias)
        for j in range(align.mlps):  # one MLP, or a sequence of them
            theirs = f"{projections}.{i}" if align.mlps == 1 else f"{projections}.{i}.{j}"
            for layer in ("fc1", "fc2"):
                out += linear(f"projection_{i}/mlp_{j}_{layer}", f"{theirs}.{layer}")
    for i in range(align.generators):
        assert align.generator is not None
        token, shape = f"generator_{i}/mask_token", (1, 1, align.teacher_width)
        out.append(same(token, f"generator_mask_tokens.{i}", shape))
        out += blocks(f"generator_{i}/blocks", f"generators.{i}.blocks", align.generator)
    return out
