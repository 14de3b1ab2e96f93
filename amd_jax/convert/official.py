"""Tables for the names of the released code: MAE, DMAE, VideoMAE and AMD."""

from amd_jax.convert.tables import Entry, blocks, linear, norm, patch_embed, same
from amd_jax.models.student import Student
from amd_jax.models.vit import ViTConfig

Patch = tuple[int, int, int]


def encoder(
    ours: str, theirs: str, config: ViTConfig, patch: Patch, channels: int, *, video: bool, final_norm: bool
) -> list[Entry]:
    """An encoder; `ours` and `theirs` are prefixes, empty or ending in their separator."""
    table = patch_embed(f"{ours}patch_embed", f"{theirs}patch_embed.proj", patch, channels, video)
    if config.cls_token:
        table.append(same(f"{ours}cls_token", f"{theirs}cls_token", (1, 1, config.block.width)))
    table += blocks(f"{ours}blocks", f"{theirs}blocks", config.block, config.depth)
    return table + norm(f"{ours}norm", f"{theirs}norm") if final_norm else table


def mae_student(student: Student, patch: Patch, channels: int) -> list[Entry]:
    """MAE's whole model, and DMAE's student with its projection heads."""
    d = student.decoder
    table = encoder("encoder/", "", student.encoder, patch, channels, video=False, final_norm=True)
    table += linear("decoder_embed", "decoder_embed", d.embed_bias)
    table.append(same("decoder/mask_token", "mask_token", (1, 1, d.block.width)))
    table += blocks("decoder/blocks", "decoder_blocks", d.block, d.depth)
    table += norm("decoder_norm", "decoder_norm") + linear("decoder_pred", "decoder_pred")
    if student.align:
        for i in range(len(student.align.student_direct)):
            bias = student.align.projection_bias
            table += linear(f"projection_{i}", f"aligned_feature_projection_heads.{i}", bias)
    return table


def amd_student(student: Student, patch: Patch, channels: int) -> list[Entry]:
    """AMD's and VideoMAE's pre-training model for videos."""
    d, a = student.decoder, student.align
    table = encoder("encoder/", "encoder.", student.encoder, patch, channels, video=True, final_norm=True)
    table += linear("decoder_embed", "encoder_to_decoder", d.embed_bias)
    table.append(same("decoder/mask_token", "mask_token", (1, 1, d.block.width)))
    table += blocks("decoder/blocks", "decoder.blocks", d.block, d.depth)
    table += norm("decoder_norm", "decoder.norm") + linear("decoder_pred", "decoder.head")
    if a is None:
        return table
    for i in range(max(len(a.student_direct), len(a.student_gen))):
        table += linear(f"projection_{i}", f"encoder.projection_heads.{i}", a.projection_bias)
    for i in range(len(a.student_gen)):
        assert a.generator is not None
        mask_token = f"generator_{i}/mask_token"
        table.append(same(mask_token, f"generator_mask_tokens.{i}", (1, 1, a.teacher_width)))
        table += blocks(f"generator_{i}/blocks", f"generators.{i}.blocks", a.generator, a.generator_depth)
    return table


def video_classifier(config: ViTConfig, patch: Patch, channels: int) -> list[Entry]:
    """VideoMAE's and AMD's fine-tuned model: mean over all tokens, norm, head."""
    table = encoder("encoder/", "", config, patch, channels, video=True, final_norm=False)
    return table + norm("fc_norm", "fc_norm") + linear("head", "head")
