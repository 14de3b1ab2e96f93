"""The encoder against a NumPy transformer that embeds everything, selects afterwards, and loops."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax.models import positions
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.vit import ViT, ViTConfig

GRID, VALUES, WIDTH, HEADS, DEPTH = (1, 3, 4), 6, 16, 2, 3
BLOCK = BlockConfig(width=WIDTH, heads=HEADS, mlp_width=40)
CONFIG = ViTConfig(BLOCK, DEPTH, GRID)
KINDS = {
    "mae": CONFIG,
    "videomae": dataclasses.replace(
        CONFIG, block=dataclasses.replace(BLOCK, qkv_bias="qv"), cls_token=False, positions="sincos_1d"
    ),
    "learned": dataclasses.replace(
        CONFIG, block=dataclasses.replace(BLOCK, qkv_bias="none"), positions="learned"
    ),
}


@functools.cache
def inputs() -> tuple[np.ndarray, np.ndarray]:
    """All patches `[batch, tokens, values]` of two samples, and five visible tokens of each."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(2, 12, VALUES)).astype(np.float32)
    return patches, np.stack([rng.permutation(12)[:5] for _ in range(2)])


def visible(patches: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.take_along_axis(patches, at[..., None], axis=1)


@functools.cache
def weights(config: ViTConfig) -> Any:
    """Parameters that are all away from zero, biases and scales too."""
    patches, at = inputs()
    shapes = jax.eval_shape(ViT(config).init, jax.random.key(0), visible(patches, at), at)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def encode(config: ViTConfig, params: Any, patches: Any, at: Any, taps: Any = (), final_norm: bool = True):
    return ViT(config, final_norm).apply({"params": params}, patches, at, taps)


def layer_norm(x: np.ndarray, p: Any) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def linear(x: np.ndarray, p: Any) -> np.ndarray:
    return x @ p["kernel"] + p["bias"]


def block(x: np.ndarray, p: Any) -> np.ndarray:
    """One pre-norm block, head by head."""
    y = layer_norm(x, p["norm1"])
    heads = []
    for head in range(HEADS):
        q, k, v = (
            y @ p["attn"]["qkv"][:, i, head] + p["attn"].get(f"{name}_bias", np.zeros((HEADS, 1)))[head]
            for i, name in enumerate("qkv")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(WIDTH // HEADS))
        heads.append(scores / scores.sum(-1, keepdims=True) @ v)
    x = x + linear(np.concatenate(heads, -1), p["attn"]["proj"])
    y = linear(layer_norm(x, p["norm2"]), p["mlp"]["fc1"])
    gelu = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return x + linear(gelu, p["mlp"]["fc2"])


def reference(config: ViTConfig, params: Any, patches: np.ndarray, at: np.ndarray) -> list[np.ndarray]:
    """The outputs of all blocks and, last, of the final norm; positions are added before the choice."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x = linear(patches, params["patch_embed"])
    cls = params.get("cls_token", np.zeros(WIDTH))
    if config.positions == "learned":
        cls, table = cls + params["positions"][0], params["positions"][1:]
    else:
        table = positions.table(config.positions, GRID, WIDTH)
    x = visible(x + table, at)
    if config.cls_token:
        x = np.concatenate([np.tile(cls, (len(x), 1, 1)), x], axis=1)
    outputs = []
    for layer in range(config.depth):
        x = block(x, jax.tree.map(lambda p, i=layer: p[i], params["blocks"]["layers"]))
        outputs.append(x)
    return [*outputs, layer_norm(x, params["norm"])]


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_visible_patches_is_embedding_all_of_them_and_choosing_afterwards(kind: str) -> None:
    config, (patches, at) = KINDS[kind], inputs()
    x, taps = encode(config, weights(config), visible(patches, at), at, (1, 3))
    first, _, third, last = reference(config, weights(config), patches, at)
    assert sorted(taps) == [1, 3]
    np.testing.assert_allclose(taps[1], first, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(taps[3], third, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x, last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_tap_is_the_output_of_the_encoder_cut_at_that_depth(layer: int) -> None:
    patches, at = inputs()
    params = weights(CONFIG)
    _, taps = encode(CONFIG, params, visible(patches, at), at, (1, 2, 3))
    layers = jax.tree.map(lambda p: p[:layer], params["blocks"]["layers"])
    cut = {**params, "blocks": {"layers": layers}}
    config = dataclasses.replace(CONFIG, depth=layer)
    x, none = encode(config, cut, visible(patches, at), at, (), False)
    np.testing.assert_allclose(x, taps[layer], rtol=1e-5, atol=1e-5)
    assert none == {}


def test_a_frozen_encoder_reads_its_layers_where_they_lie_and_computes_the_same() -> None:
    patches, at = inputs()
    frozen = dataclasses.replace(CONFIG, block=dataclasses.replace(BLOCK, frozen=True))
    given = (weights(CONFIG), visible(patches, at), at, (1, 3))
    (x, taps), (same, same_taps) = encode(CONFIG, *given), encode(frozen, *given)
    np.testing.assert_allclose(same, x, rtol=1e-6, atol=1e-6)
    assert same_taps.keys() == taps.keys() == {1, 3}
    for layer in taps:
        np.testing.assert_allclose(same_taps[layer], taps[layer], rtol=1e-6, atol=1e-6)


def test_tapping_does_not_change_the_output() -> None:
    patches, at = inputs()
    x, _ = encode(CONFIG, weights(CONFIG), visible(patches, at), at)
    y, _ = encode(CONFIG, weights(CONFIG), visible(patches, at), at, (1, 2, 3))
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["mae", "videomae"])
def test_reordering_the_visible_tokens_reorders_the_outputs(kind: str) -> None:
    config, (patches, at) = KINDS[kind], inputs()
    order = np.array([3, 0, 4, 1, 2])
    x, _ = encode(config, weights(config), visible(patches, at), at)
    y, _ = encode(config, weights(config), visible(patches, at[:, order]), at[:, order])
    cls = int(config.cls_token)
    np.testing.assert_allclose(y[:, cls:], x[:, cls:][:, order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y[:, :cls], x[:, :cls], rtol=1e-4, atol=1e-4)


def test_a_samples_features_do_not_depend_on_the_rest_of_its_batch() -> None:
    patches, at = inputs()
    x, _ = encode(CONFIG, weights(CONFIG), visible(patches, at), at)
    other = np.stack([patches[0], patches[1] + 1])
    y, _ = encode(CONFIG, weights(CONFIG), visible(other, at), at)
    np.testing.assert_allclose(x[0], y[0], rtol=1e-6, atol=1e-6)
    assert abs(x[1] - y[1]).max() > 1e-2


@pytest.mark.parametrize(
    ("how", "seen_by", "frozen"),
    [("remat", "remat", False), ("unroll", f"unroll={DEPTH}", False), ("unroll", "unroll=2", True)],
)
def test_how_layers_are_run_changes_neither_outputs_nor_gradients(
    how: str, seen_by: str, frozen: bool
) -> None:
    """Recomputed in the backward pass; without a loop, which a frozen stack has from tap to tap."""
    patches, at = inputs()

    def run(changed: bool):
        block = dataclasses.replace(BLOCK, frozen=frozen, **{how: changed})
        config = dataclasses.replace(CONFIG, block=block)

        def loss(params: Any) -> Any:
            x, taps = ViT(config).apply({"params": params}, visible(patches, at), at, (2,))
            return (x**2 * jnp.arange(WIDTH)).mean() + (taps[2] ** 3).mean(), x

        text = str(jax.make_jaxpr(jax.grad(loss, has_aux=True))(weights(CONFIG)))
        grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
        return grad(weights(CONFIG)), seen_by in text

    (plain, before), (again, after) = run(False), run(True)
    assert after
    assert not before
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain, again)


@pytest.mark.parametrize(
    ("qkv_bias", "names"),
    [("qkv", {"q_bias", "k_bias", "v_bias"}), ("qv", {"q_bias", "v_bias"}), ("none", set())],
)
def test_the_kind_of_bias_says_which_of_q_k_and_v_have_one(qkv_bias: str, names: set[str]) -> None:
    config = dataclasses.replace(CONFIG, block=dataclasses.replace(BLOCK, qkv_bias=qkv_bias))
    attention = weights(config)["blocks"]["layers"]["attn"]
    assert {name for name in attention if name.endswith("bias")} == names
    assert {attention[name].shape for name in names} <= {(DEPTH, HEADS, WIDTH // HEADS)}


def test_what_is_switched_off_has_no_parameters() -> None:
    assert {"cls_token", "norm"} <= weights(CONFIG).keys()
    assert "cls_token" not in weights(KINDS["videomae"])
    assert "positions" not in weights(CONFIG)
    assert weights(KINDS["learned"])["positions"].shape == (13, WIDTH)
    patches, at = inputs()
    cut = jax.eval_shape(ViT(CONFIG, final_norm=False).init, jax.random.key(0), visible(patches, at), at)
    assert "norm" not in cut["params"]


def test_kernels_start_xavier_uniform_layer_by_layer_with_zero_biases() -> None:
    """METHODS.md, AMD 8: the fan of q, k and v together, as one linear of three times the width."""
    wide = dataclasses.replace(CONFIG, block=BlockConfig(width=64, heads=4, mlp_width=128), depth=2)
    patches, at = inputs()
    init = jax.jit(ViT(wide).init)
    params = init(jax.random.key(0), visible(patches, at), at)["params"]
    layers = params["blocks"]["layers"]
    fans = {
        "qkv": (layers["attn"]["qkv"], 64 + 192),
        "proj": (layers["attn"]["proj"]["kernel"], 64 + 64),
        "fc1": (layers["mlp"]["fc1"]["kernel"], 64 + 128),
    }
    for name, (kernel, fan) in fans.items():
        bound = math.sqrt(6 / fan)
        assert abs(kernel).max() <= bound, name
        assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
        assert (kernel[0] != kernel[1]).any(), name
    biases = [layers["attn"]["q_bias"], layers["mlp"]["fc2"]["bias"], params["patch_embed"]["bias"]]
    assert all((bias == 0).all() for bias in biases)
    assert 0.01 < params["cls_token"].std() < 0.03


def test_a_patch_embedding_starts_as_pytorch_starts_a_convolution_where_videomae_leaves_it_so() -> None:
    """METHODS.md, AMD 8: U(±1/sqrt(fan in)) for weight and bias; everything else as in an image encoder."""
    wide = dataclasses.replace(CONFIG, block=BlockConfig(width=64, heads=4, mlp_width=128), depth=1)
    patches, at = np.zeros((1, 12, 96), np.float32), np.arange(12)[None]

    def drawn(patch_init: str) -> Any:
        config = dataclasses.replace(wide, patch_init=patch_init)
        init = jax.jit(ViT(config).init)
        return dict(init(jax.random.key(0), patches, at)["params"])

    video, image = drawn("uniform"), drawn("xavier")
    kernel, bias = video["patch_embed"]["kernel"], video["patch_embed"]["bias"]
    bound = 1 / math.sqrt(96)
    for x, close in ((kernel, 0.03), (bias, 0.3)):
        assert 0.9 * bound < abs(x).max() <= bound
        assert abs(x.mean()) < close * bound
        assert x.std() == pytest.approx(bound / math.sqrt(3), rel=close)
    assert image.pop("patch_embed").keys() == video.pop("patch_embed").keys()
    jax.tree.map(np.testing.assert_array_equal, image, video)


def test_bfloat16_compute_keeps_float32_parameters_and_norm_and_comes_close() -> None:
    block = dataclasses.replace(BLOCK, dtype=jnp.bfloat16, residual=jnp.bfloat16)
    config = dataclasses.replace(CONFIG, block=block)
    patches, at = inputs()
    assert {leaf.dtype for leaf in jax.tree.leaves(weights(config))} == {np.dtype("float32")}
    exact, _ = encode(CONFIG, weights(CONFIG), visible(patches, at), at)
    x, taps = encode(config, weights(CONFIG), visible(patches, at), at, (1,))
    assert (x.dtype, taps[1].dtype) == (jnp.float32, jnp.bfloat16)
    assert 0 < abs(x - exact).max() < 0.2


@pytest.mark.parametrize(
    ("dtype", "residual"),
    [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float32", "float32"), ("float32", "bfloat16")],
)
def test_the_sum_goes_from_block_to_block_in_the_type_that_is_asked_for(dtype: str, residual: str) -> None:
    block = dataclasses.replace(BLOCK, dtype=jnp.dtype(dtype), residual=jnp.dtype(residual))
    patches, at = inputs()
    model, params = ViT(dataclasses.replace(CONFIG, block=block)), weights(CONFIG)

    def encoded(params: Any) -> Any:
        return model.apply({"params": params}, visible(patches, at), at, (1,))

    (scan,) = (e for e in jax.make_jaxpr(encoded)(params).jaxpr.eqns if e.primitive.name == "scan")
    assert scan.outvars[0].aval.dtype == residual
    x, taps = jax.eval_shape(encoded, params)
    assert (x.dtype, taps[1].dtype) == (jnp.float32, residual)


def test_drop_paths_factors_are_not_rounded_where_the_networks_compute_in_bfloat16() -> None:
    config = dataclasses.replace(CONFIG, block=dataclasses.replace(BLOCK, dtype=jnp.bfloat16))
    patches, at = inputs()

    def first_block(factor: float) -> jax.Array:
        keep = jnp.zeros((2, DEPTH, 2)).at[:, 0, 0].set(factor)
        given = (visible(patches, at), at, (1,), keep)
        return ViT(config).apply({"params": weights(CONFIG)}, *given)[1][1]  # type: ignore[index]

    without = first_block(0)
    expected = (first_block(1) - without) / 0.9
    np.testing.assert_allclose(first_block(1 / 0.9) - without, expected, rtol=1e-5, atol=1e-5)
