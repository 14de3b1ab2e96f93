"""The student: encoder, pixel decoder, and the heads that align it with a teacher."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from amd_jax.models import positions
from amd_jax.models.blocks import BlockConfig, Blocks, Linear, layer_norm
from amd_jax.models.masking import Masks
from amd_jax.models.vit import ViT, ViTConfig

token_init = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The pixel decoder; `positions` names a fixed table."""

    block: BlockConfig
    depth: int
    positions: str
    embed_bias: bool  # of the encoder-to-decoder linear
    norm_eps: float | None = None  # of the last norm, where it is not the blocks' (Hugging Face's VideoMAE)


@dataclasses.dataclass(frozen=True)
class AlignConfig:
    """Which layers are aligned, and how student features become comparable to the teacher's.

    The n-th direct and the n-th generative alignment share the n-th projection. Layers count from 1.
    """

    teacher_width: int
    student_direct: tuple[int, ...]
    teacher_direct: tuple[int, ...]
    student_gen: tuple[int, ...] = ()
    teacher_gen: tuple[int, ...] = ()
    generator: BlockConfig | None = None  # of teacher width; None without generative alignment
    generator_depth: int = 2
    positions: str = "sincos_1d"
    projection_bias: bool = False  # AMD: none, DMAE: yes
    projection_mlps: int = 0  # so many MLPs instead of one linear layer (DMAE's ablation)
    cls_token: bool = False  # align the CLS token as well (DMAE)

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Every tapped student layer, ascending."""
        return tuple(sorted({*self.student_direct, *self.student_gen}))

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Every tapped teacher layer, ascending; the teacher ends at the last one."""
        return tuple(sorted({*self.teacher_direct, *self.teacher_gen}))


@struct.dataclass
class StudentOutput:
    """What the loss compares with pixels and teacher."""

    pixels: jax.Array  # [batch, predicted tokens, patch values], float32
    direct: tuple[jax.Array, ...] = ()  # per aligned layer [batch, (1 +) student-visible, teacher width]
    gen: tuple[jax.Array, ...] = ()  # per aligned layer [batch, diff, teacher width]


class FillIn(nn.Module):
    """Blocks over known tokens followed by mask tokens, both with positions: decoder and generator share it.

    Attention does not care about the order of tokens, so the known ones come first and the mask tokens after.
    """

    block: BlockConfig
    depth: int
    grid: tuple[int, int, int]
    positions: str

    @nn.compact
    def __call__(self, known: jax.Array, at: jax.Array, unknown_at: jax.Array) -> jax.Array:
        """Returns all tokens after the last block.

        Args:
          known: `[batch, (1 +) n, width]`; one more than `at` has means a CLS token in front, position zero.
          at: `[batch, n]`, token indices of the known tokens.
          unknown_at: `[batch, m]`, token indices to fill in.
        """
        width, residual = self.block.width, self.block.residual
        table = jnp.asarray(positions.table(self.positions, self.grid, width))
        cls, known = jnp.split(known, [known.shape[1] - at.shape[1]], axis=1)
        mask_token = self.param("mask_token", token_init, (width,))
        x = [cls.astype(residual), known.astype(residual) + table[at].astype(residual)]
        x.append((mask_token + table[unknown_at]).astype(residual))
        return Blocks(self.block, self.depth, name="blocks")(jnp.concatenate(x, axis=1))[0]


class MlpProjection(nn.Module):
    """One or two MLPs from student to teacher width, with hidden features of teacher width.

    Source: DMAE's projection modes mlp-1layer and mlp-2layer.
    """

    width: int
    mlps: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.mlps):
            x = Linear(self.width, dtype=self.dtype, name=f"mlp_{i}_fc1")(x)
            x = Linear(self.width, dtype=self.dtype, name=f"mlp_{i}_fc2")(nn.gelu(x, approximate=False))
        return x


class Student(nn.Module):
    """Encoder + decoder, and with `align` also projections and generators."""

    encoder: ViTConfig
    decoder: DecoderConfig
    align: AlignConfig | None = None

    @nn.compact
    def __call__(self, patches: jax.Array, masks: Masks, predict_all: bool = False) -> StudentOutput:
        """Encode the student-visible patches and predict the rest.

        Args:
          patches: `[batch, student-visible, patch values]`, normalised pixels.
          masks: the nested masks of the batch.
          predict_all: also predict the visible patches, which the loss does not need. The order of the
            predictions is then student-visible, diff, masked; without it diff, masked.
        """
        a = self.align
        taps = a.student_layers if a else ()
        x, tapped = ViT(self.encoder, name="encoder")(patches, masks.student, taps)
        hidden = masks.hidden
        pixels = self._decode(x, masks.student, hidden)
        first = 0 if predict_all else masks.student.shape[1]
        pixels = self._read_pixels(pixels[:, self.encoder.cls_token + first :], patches.shape[-1])
        if a is None:
            return StudentOutput(pixels)

        drop_cls = self.encoder.cls_token and not a.cls_token
        pairs = max(len(a.student_direct), len(a.student_gen))
        projections = [self._projection(a, i) for i in range(pairs)]
        direct = tuple(
            projections[i](tapped[layer])[:, drop_cls:] for i, layer in enumerate(a.student_direct)
        )
        gen = []
        for i, layer in enumerate(a.student_gen):
            assert a.generator is not None
            known = projections[i](tapped[layer])[:, self.encoder.cls_token :]
            fill_in = FillIn(
                a.generator,
                a.generator_depth,
                self.encoder.grid,
                a.positions,
                name=f"generator_{i}",
            )
            filled = fill_in(known, masks.student, masks.diff)
            gen.append(filled[:, masks.student.shape[1] :])
        return StudentOutput(pixels, direct, tuple(gen))

    def _projection(self, align: AlignConfig, i: int) -> Callable[[jax.Array], jax.Array]:
        dtype, name = self.encoder.block.dtype, f"projection_{i}"
        if align.projection_mlps:
            return MlpProjection(align.teacher_width, align.projection_mlps, dtype, name=name)
        return Linear(align.teacher_width, align.projection_bias, dtype=dtype, name=name)

    def _decode(self, x: jax.Array, visible: jax.Array, hidden: jax.Array) -> jax.Array:
        d = self.decoder
        x = Linear(d.block.width, d.embed_bias, dtype=d.block.dtype, name="decoder_embed")(x)
        return FillIn(d.block, d.depth, self.encoder.grid, d.positions, name="decoder")(x, visible, hidden)

    def _read_pixels(self, x: jax.Array, values: int) -> jax.Array:
        d = self.decoder
        x = layer_norm("decoder_norm", d.norm_eps or d.block.norm_eps)(x)
        return Linear(values, dtype=d.block.dtype, name="decoder_pred")(x).astype(jnp.float32)
