"""From config keys to networks."""

from typing import Any

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from amd_jax.models import build
from amd_jax.models.sizes import SIZES
from configs import vitb_in1k


def config(**changes: Any) -> ConfigDict:
    out = vitb_in1k.get_config("")
    out.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return out


def test_patch_and_grid_follow_image_frames_and_tubelet() -> None:
    video = config(data__frames=16, model__tubelet=2)
    assert build.patch(video) == (2, 16, 16)
    assert build.grid(video) == (8, 14, 14)
    assert build.grid(config()) == (1, 14, 14)


def test_amds_published_video_masks() -> None:
    """METHODS.md, AMD 1: 20 positions for the student, 49 for the teacher."""
    assert build.visible(config(mask__student_ratio=0.9, mask__teacher_ratio=0.75)) == (20, 49)


def test_a_given_count_wins_over_the_ratio() -> None:
    assert build.visible(config(mask__student_visible=10, mask__teacher_ratio=0.75)) == (10, 49)
    assert build.visible(config(mask__teacher_visible=60)) == (49, 60)


@pytest.mark.parametrize("method", ["mae", "dmae"])
def test_only_amds_teacher_sees_more_than_the_student(method: str) -> None:
    assert build.visible(config(method=method)) == (49, 49)


def test_a_size_gives_the_encoder_its_shape_and_single_keys_override_it() -> None:
    base = build.encoder(config(), "student")
    shape = (base.block.width, base.depth, base.block.heads, base.block.mlp_width)
    assert shape == SIZES["base"] == (768, 12, 12, 3072)
    own = build.encoder(config(student__width=96, student__depth=5, student__heads=3), "student")
    assert (own.block.width, own.depth, own.block.heads, own.block.mlp_width) == (96, 5, 3, 384)
    giant = build.encoder(config(student__size="giant"), "student")
    assert giant.block.mlp_width == 6144


def test_the_generator_has_teacher_width_and_heads_of_64_and_the_decoder_its_own_shape() -> None:
    student = build.student(config())
    assert student.align is not None
    block = student.align.generator
    assert block is not None
    assert (block.width, block.heads, block.mlp_width, student.align.generator_depth) == (1024, 16, 4096, 2)
    decoder = student.decoder
    assert (decoder.block.width, decoder.block.heads, decoder.depth, decoder.embed_bias) == (384, 6, 4, False)


def test_the_teacher_is_cut_after_its_last_aligned_layer_and_has_no_final_norm() -> None:
    teacher = build.teacher(config(align__teacher_layers=(8, 17)))
    assert teacher is not None
    assert (teacher.config.depth, teacher.final_norm) == (17, False)
    assert build.teacher(config(method="mae")) is None


@pytest.mark.parametrize(
    ("changes", "direct", "gen"),
    [
        ({}, (6, 12), (6, 12)),
        ({"loss__direct_weight": 0.0}, (), (6, 12)),
        ({"loss__gen_weight": 0.0}, (6, 12), ()),
        ({"mask__teacher_ratio": 0.75}, (6, 12), ()),  # no diff tokens, nothing to generate
        ({"method": "dmae"}, (6, 12), ()),
    ],
)
def test_what_is_not_trained_is_not_built(changes: dict[str, Any], direct: tuple, gen: tuple) -> None:
    align = build.student(config(**changes)).align
    assert align is not None
    assert (align.student_direct, align.student_gen) == (direct, gen)
    assert len(align.teacher_direct) == len(direct)
    assert len(align.teacher_gen) == len(gen)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_the_patch_embedding_of_a_clip_starts_as_videomaes_and_of_an_image_as_maes(who: str) -> None:
    clip = config(data__frames=16, model__tubelet=2)
    assert build.encoder(clip, who).patch_init == "uniform"
    image = config(student__positions="sincos_1d", teacher__positions="sincos_1d")
    assert build.encoder(image, who).patch_init == "xavier"


def test_learned_positions_are_the_encoders_alone() -> None:
    student = build.student(config(student__positions="learned"))
    assert student.encoder.positions == "learned"
    assert student.decoder.positions == "sincos_2d"
    assert student.align is not None
    assert student.align.positions == "sincos_2d"


def test_the_compute_type_is_what_the_config_says_and_float32_by_default_on_a_cpu() -> None:
    assert build.compute_dtype(config()) == jnp.float32
    assert build.compute_dtype(config(model__dtype="bfloat16")) == jnp.bfloat16
    assert build.encoder(config(model__dtype="bfloat16"), "teacher").block.dtype == jnp.bfloat16


def test_every_stack_of_blocks_passes_on_sums_of_the_type_that_the_config_says() -> None:
    half = config(model__residual="bfloat16")
    student = build.student(half)
    assert student.align is not None
    assert student.align.generator is not None
    blocks = [student.encoder.block, student.decoder.block, student.align.generator]
    blocks.append(build.encoder(half, "teacher").block)
    assert {(block.dtype, block.residual) for block in blocks} == {
        (jnp.dtype("float32"), jnp.dtype("bfloat16"))
    }
    assert build.encoder(config(model__dtype="bfloat16"), "student").block.residual == jnp.bfloat16
