"""Floating-point operations of a training step, counted from the model (XLA counts a scan's body once)."""

from amd_jax.models.blocks import BlockConfig
from amd_jax.models.classifier import Classifier
from amd_jax.models.student import Student
from amd_jax.models.vit import ViTConfig


def blocks(block: BlockConfig, depth: int, tokens: int) -> int:
    """One forward pass of one example: 2 operations per multiply-add; norms and activations not counted."""
    return linear(block, depth, tokens) + depth * 4 * tokens**2 * block.width


def linear(block: BlockConfig, depth: int, tokens: int) -> int:
    """Those of `blocks` in products with kernels; the others are attention's."""
    mlp = 3 if block.mlp == "swiglu" else 2
    return depth * 2 * tokens * (4 * block.width**2 + mlp * block.width * block.mlp_width)


def in_eight_bits(teacher: ViTConfig | None, patch_tokens: int) -> int:
    """Those of a teacher's forward pass that `teacher.dtype` takes to eight bits."""
    if teacher is None or not teacher.block.kept_as:
        return 0
    return linear(teacher.block, teacher.depth, patch_tokens + teacher.prefix)


def encoder(config: ViTConfig, patch_tokens: int, patch_values: int) -> int:
    """Patch embedding and blocks over the visible tokens."""
    embed = 2 * patch_tokens * patch_values * config.block.width
    return embed + blocks(config.block, config.depth, patch_tokens + config.prefix)


def pretrain_step(
    student: Student,
    teacher: ViTConfig | None,
    visible: tuple[int, int],
    patch_values: int,
    teacher_patch_values: int,
) -> int:
    """One example's share of a step: student forward and backward (three forwards), teacher forward.

    `visible` is the number of tokens that student and teacher see. Recomputation (remat) is not counted, as
    usual for model FLOPs utilisation; nor is making the images the size that the teacher wants.
    """
    seen, teacher_seen = visible
    enc, dec, align = student.encoder, student.decoder, student.align
    hidden = enc.tokens - seen
    total = encoder(enc, seen, patch_values)
    total += 2 * (seen + enc.cls_token) * enc.block.width * dec.block.width
    total += blocks(dec.block, dec.depth, enc.tokens + enc.cls_token)
    total += 2 * hidden * dec.block.width * patch_values
    if align is not None:
        pairs = len(align.student_direct) + len(align.student_gen)
        total += pairs * 2 * seen * enc.block.width * align.teacher_width
        if align.generator is not None:
            total += len(align.student_gen) * blocks(align.generator, align.generator_depth, teacher_seen)
    teacher_flops = encoder(teacher, teacher_seen, teacher_patch_values) if teacher else 0
    return 3 * total + teacher_flops


def classify(model: Classifier, patch_values: int, *, training: bool) -> int:
    """One example through a classifier; training adds the backward pass (two more forwards)."""
    head = 2 * model.encoder.block.width * model.classes
    forward = encoder(model.encoder, model.encoder.tokens, patch_values) + head
    return 3 * forward if training else forward
