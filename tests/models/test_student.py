"""The student: what it sees, what it predicts where, and what the teacher never sees."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from amd_jax.models import build, patches
from amd_jax.models.blocks import BlockConfig, Blocks
from amd_jax.models.masking import Masks
from amd_jax.models.positions import sincos_2d
from amd_jax.models.student import FillIn
from amd_jax.models.vit import ViT
from amd_jax.steps.pretrain import Pretraining
from amd_jax.trees import path_name
from configs import vitb_in1k

BATCH = 3


def config(**changes: Any) -> ConfigDict:
    """The smoke config with one aligned layer: less to compile."""
    out = vitb_in1k.get_config("smoke")
    out.align.student_layers, out.align.teacher_layers, out.align.generator_depth = (2,), (2,), 1
    out.update_from_flattened_dict(changes)
    return out


RUN = Pretraining.from_config(config())


@functools.cache
def case() -> tuple[Any, Any, np.ndarray, Masks]:
    """Student and teacher parameters, pixels and masks."""
    rng = np.random.default_rng(0)

    def draw(init: Any) -> Any:
        shapes = jax.eval_shape(init, jax.random.key(0))
        return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)

    pixels = rng.integers(0, 256, (BATCH, *RUN.input_shape), dtype=np.uint8)
    return draw(RUN.init), draw(RUN.init_frozen), pixels, RUN.masks(jax.random.key(5), BATCH)


@functools.cache
def student_output(predict_all: bool = False) -> Any:
    """The compiled student."""
    return jax.jit(lambda params, pixels, masks: RUN.student_output(params, pixels, masks, predict_all))


@functools.cache
def teacher_features() -> Any:
    """The compiled teacher."""
    return jax.jit(RUN.teacher_features)


def repainted(pixels: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Other pixels in the patches `tokens` `[batch, n]`, by loops over the image."""
    out = pixels.copy()
    _, size, _ = RUN.patch
    across = pixels.shape[3] // size
    for image, row in zip(out, np.asarray(tokens), strict=True):
        for token in row:
            y, x = size * (token // across), size * (token % across)
            image[:, y : y + size, x : x + size] ^= 0xFF
    return out


def differs(a: Any, b: Any) -> bool:
    return bool(max(abs(np.asarray(x) - np.asarray(y)).max() for x, y in zip(a, b, strict=True)) > 1e-3)


def leaves(tree: Any) -> list[np.ndarray]:
    return jax.tree.leaves(jax.device_get(tree))


def test_the_student_never_sees_diff_or_masked_patches() -> None:
    student, _, pixels, masks = case()
    out = student_output()(student, pixels, masks)
    hidden = student_output()(student, repainted(pixels, masks.hidden), masks)
    jax.tree.map(np.testing.assert_array_equal, out, hidden)
    seen = student_output()(student, repainted(pixels, masks.student[:, :1]), masks)
    assert differs(leaves(out), leaves(seen))


def test_the_teacher_sees_diff_patches_and_never_masked_ones() -> None:
    _, teacher, pixels, masks = case()
    features = teacher_features()(teacher, pixels, masks)
    masked = teacher_features()(teacher, repainted(pixels, masks.masked), masks)
    jax.tree.map(np.testing.assert_array_equal, features, masked)
    diff = teacher_features()(teacher, repainted(pixels, masks.diff[:, :1]), masks)
    assert differs(leaves(features), leaves(diff))


def test_predicting_everything_agrees_at_the_hidden_tokens() -> None:
    student, _, pixels, masks = case()
    hidden = student_output()(student, pixels, masks).pixels
    everything = student_output(predict_all=True)(student, pixels, masks).pixels
    seen = masks.student.shape[1]
    assert everything.shape[1] == RUN.student.encoder.tokens
    assert hidden.shape[1] == RUN.student.encoder.tokens - seen
    np.testing.assert_allclose(everything[:, seen:], hidden, rtol=1e-5, atol=1e-5)


def test_predictions_follow_their_tokens_when_the_masks_are_reordered() -> None:
    """So predictions are in the order of `masks.hidden`, and features in that of student and diff."""
    student, _, pixels, masks = case()
    backwards = Masks(*(part[:, ::-1] for part in masks))
    out = student_output()(student, pixels, masks)
    back = student_output()(student, pixels, backwards)
    diff = masks.diff.shape[1]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    close(back.pixels[:, :diff], out.pixels[:, :diff][:, ::-1])
    close(back.pixels[:, diff:], out.pixels[:, diff:][:, ::-1])
    close(back.direct[0], out.direct[0][:, ::-1])
    close(back.gen[0], out.gen[0][:, ::-1])


def test_generators_are_read_at_the_diff_tokens_and_the_decoder_at_diff_then_masked_ones() -> None:
    """Blocks that add nothing leave the mask token plus the position of the token it stands for."""
    student, _, pixels, masks = case()

    def silence(path: Any, leaf: np.ndarray) -> np.ndarray:
        return 0 * leaf if "/proj/" in path_name(path) or "/fc2/" in path_name(path) else leaf

    quiet = {
        name: jax.tree_util.tree_map_with_path(silence, value)
        if name in ("decoder", "generator_0")
        else value
        for name, value in student.items()
    }
    out = student_output()(quiet, pixels, masks)
    grid = RUN.student.encoder.grid[1:]
    expected = quiet["generator_0"]["mask_token"] + sincos_2d(grid, 32)[np.asarray(masks.diff)]
    np.testing.assert_allclose(out.gen[0], expected, rtol=1e-5, atol=1e-5)
    x = quiet["decoder"]["mask_token"] + sincos_2d(grid, 16)[np.asarray(masks.hidden)]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * quiet["decoder_norm"]["scale"] + quiet["decoder_norm"]["bias"]
    expected = x @ quiet["decoder_pred"]["kernel"] + quiet["decoder_pred"]["bias"]
    np.testing.assert_allclose(out.pixels, expected, rtol=1e-4, atol=1e-4)


def test_a_hidden_tokens_prediction_depends_on_its_position() -> None:
    student, _, pixels, masks = case()
    out = student_output()(student, pixels, masks)
    for predicted in (out.pixels[0], out.gen[0][0]):
        assert len(np.unique(np.asarray(predicted).round(3), axis=0)) == len(predicted)


def test_student_and_teacher_features_have_the_same_shapes_layer_by_layer() -> None:
    student, teacher, pixels, masks = case()
    out = jax.eval_shape(RUN.student_output, student, pixels, masks)
    direct, gen = jax.eval_shape(RUN.aligned_teacher, teacher, pixels, masks)
    width = RUN.teacher.config.block.width
    assert [x.shape for x in out.direct] == [x.shape for x in direct] == [(BATCH, 4, width)]
    assert [x.shape for x in out.gen] == [x.shape for x in gen] == [(BATCH, 4, width)]


def test_the_teachers_features_are_split_into_direct_and_diff_without_its_cls_token() -> None:
    _, teacher, pixels, masks = case()
    whole = teacher_features()(teacher, pixels, masks)[2]
    direct, gen = jax.jit(RUN.aligned_teacher)(teacher, pixels, masks)
    np.testing.assert_allclose(direct[0], whole[:, 1:5], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gen[0], whole[:, 5:], rtol=1e-5, atol=1e-5)


def test_the_direct_features_are_a_bias_free_projection_of_the_tapped_layer() -> None:
    student, _, pixels, masks = case()
    projection = student["projection_0"]
    assert projection.keys() == {"kernel"}
    out = student_output()(student, pixels, masks)

    def tapped(params: Any) -> Any:
        x = patches.gather_tokens(patches.patchify(pixels, RUN.patch), masks.student)
        x = patches.normalize(x, RUN.mean, RUN.std)
        return ViT(RUN.student.encoder).apply({"params": params}, x, masks.student, (2,))[1][2]

    features = jax.jit(tapped)(student["encoder"])
    expected = np.asarray(features[:, 1:]) @ projection["kernel"]
    np.testing.assert_allclose(out.direct[0], expected, rtol=1e-4, atol=1e-4)


def test_direct_and_generative_alignment_share_the_projection_of_a_layer() -> None:
    wide = config()
    wide.align.student_layers = wide.align.teacher_layers = (1, 2)
    params = jax.eval_shape(Pretraining.from_config(wide).init, jax.random.key(0))
    names = sorted(name for name in params if name.startswith(("projection", "generator")))
    assert names == ["generator_0", "generator_1", "projection_0", "projection_1"]


def test_without_a_teacher_there_are_no_heads_for_it() -> None:
    run = Pretraining.from_config(config(method="mae"))
    params = jax.eval_shape(run.init, jax.random.key(0))
    assert run.teacher is None
    assert params.keys() == {"encoder", "decoder_embed", "decoder", "decoder_norm", "decoder_pred"}
    out = jax.eval_shape(run.student_output, params, case()[2], run.masks(jax.random.key(0), BATCH))
    assert (out.direct, out.gen) == ((), ())


@pytest.mark.parametrize("seed", [0, 1])
def test_nobody_embeds_a_token_that_nobody_sees(seed: int) -> None:
    """Static sizes, the same for every key: what reaches a patch embedding is counted by interception."""
    student, teacher, pixels, _ = case()
    masks = RUN.masks(jax.random.key(seed), BATCH)
    embedded = []

    def count(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.module.name == "patch_embed":
            embedded.append(args[0].shape[1])
        return call(*args, **kwargs)

    with nn.intercept_methods(count):
        # A lambda of its own, or jax answers from an earlier test's trace.
        jax.eval_shape(lambda: RUN.student_output(student, pixels, masks))
        jax.eval_shape(lambda: RUN.teacher_features(teacher, pixels, masks))
    assert embedded == [RUN.student_visible, RUN.teacher_visible] == [4, 8]


def test_known_tokens_come_first_with_positions_then_mask_tokens_and_cls_has_no_position() -> None:
    model = FillIn(BlockConfig(width=16, heads=2, mlp_width=32), 1, (1, 2, 2), "sincos_2d")
    known = np.random.default_rng(0).normal(size=(1, 3, 16)).astype(np.float32)
    at, unknown = np.array([[0, 3]]), np.array([[2, 1]])
    params = jax.eval_shape(model.init, jax.random.key(0), known, at, unknown)["params"]
    params = jax.tree.map(lambda s: np.full(s.shape, 0.5, np.float32), params)
    reached = []

    def read(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, Blocks):
            reached.append(args[0])
            return args[0], {}
        return call(*args, **kwargs)

    with nn.intercept_methods(read):
        model.apply({"params": params}, known, at, unknown)
    table = sincos_2d((2, 2), 16)
    expected = np.concatenate([known[0, :1], known[0, 1:] + table[[0, 3]], 0.5 + table[[2, 1]]])
    np.testing.assert_allclose(reached[0][0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("projection", "names"),
    [
        ("linear", {"kernel"}),
        ("linear_bias", {"kernel", "bias"}),
        ("mlp", {"mlp_0_fc1", "mlp_0_fc2"}),
        ("mlp2", {"mlp_0_fc1", "mlp_0_fc2", "mlp_1_fc1", "mlp_1_fc2"}),
    ],
)
def test_dmae_aligns_the_cls_token_too_and_has_no_generators(projection: str, names: set[str]) -> None:
    run = Pretraining.from_config(config(**{"method": "dmae", "align.projection": projection}))
    params = jax.eval_shape(run.init, jax.random.key(0))
    assert params["projection_0"].keys() == names
    assert not [name for name in params if name.startswith("generator")]
    masks, pixels = run.masks(jax.random.key(0), BATCH), case()[2]
    assert masks.diff.shape[1] == 0
    out = jax.eval_shape(run.student_output, params, pixels, masks)
    teacher = jax.eval_shape(run.init_frozen, jax.random.key(0))
    direct, gen = jax.eval_shape(run.aligned_teacher, teacher, pixels, masks)
    assert [x.shape for x in out.direct] == [x.shape for x in direct] == [(BATCH, 5, 32)]
    assert (out.gen, gen) == ((), ())


def test_the_teacher_ends_at_its_last_aligned_layer() -> None:
    deep = config()
    deep.teacher.depth = 6
    deep.align.teacher_layers = (3,)
    teacher = build.teacher(deep)
    assert (teacher.config.depth, teacher.final_norm) == (3, False)
