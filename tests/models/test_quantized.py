"""Products in eight bits against exact ones, within what rounding allows."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amd_jax.models.blocks import BlockConfig
from amd_jax.models.quantized import product, quantize
from amd_jax.models.vit import ViT, ViTConfig
from amd_jax.trees import path_name

FLOATS = ViTConfig(BlockConfig(width=64, heads=4, mlp_width=256, mlp="swiglu", frozen=True), 4, (1, 4, 4))
LARGEST = {"int8": 127, "fp8": 448}


def kept_as(name: str) -> ViTConfig:
    return dataclasses.replace(FLOATS, block=dataclasses.replace(FLOATS.block, kept_as=name))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Rows and columns of very different sizes."""
    rng = np.random.default_rng(seed)
    rows, columns = (10.0 ** rng.uniform(-3, 3, shape[i]) for i in (0, -1))
    return ((rng.normal(size=shape).T * rows).T * columns).astype(np.float32)


def back(kernel: Any) -> np.ndarray:
    return np.asarray(kernel["values"], np.float32) * np.asarray(kernel["scale"])


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_value_of_each_channel_is_the_types_largest(name: str) -> None:
    kept = quantize(random(48, 3, 2, 8), name, axis=0)
    values = np.abs(np.asarray(kept["values"], np.float32))
    assert kept["scale"].shape == (1, 3, 2, 8)
    np.testing.assert_array_equal(values.max(axis=0), LARGEST[name])


def test_each_value_is_off_by_half_a_step_at_most() -> None:
    """Of int8: half the scale. Of fp8, which has three digits after the first: a 16th of itself."""
    x = random(48, 32)
    kept = quantize(x, "int8", axis=0)
    assert np.all(np.abs(back(kept) - x) <= 0.5001 * kept["scale"])
    kept = quantize(x, "fp8", axis=0)
    assert np.all(np.abs(back(kept) - x) <= np.maximum(np.abs(x) / 15.9, 2.0**-10 * kept["scale"]))


@given(st.integers(0, 2**16))
def test_a_product_is_off_by_what_its_rounded_factors_allow(seed: int) -> None:
    x, kernel = random(5, 48, seed=seed), random(48, 6, seed=seed + 1)
    kept, rows = quantize(kernel, "int8", 0), quantize(jnp.asarray(x), "int8", 1)
    have = np.asarray(product(jnp.asarray(x), kept, jnp.float32), np.float64)
    of_x, of_kernel = np.asarray(rows["scale"]) / 2, kept["scale"] / 2
    allowed = np.abs(x) @ np.broadcast_to(of_kernel, kernel.shape)
    allowed += of_x * (np.abs(kernel) + of_kernel).sum(0)
    assert np.all(np.abs(have - x.astype(np.float64) @ kernel) <= 1.001 * allowed)
    sums = np.asarray(rows["values"], np.int64) @ kept["values"].astype(np.int64)
    np.testing.assert_allclose(have, sums * np.asarray(rows["scale"], np.float64) * kept["scale"], rtol=1e-6)


def test_what_eight_bits_hold_is_multiplied_exactly() -> None:
    """Also where the sum has more digits than float32; a row of zeros stays zero."""
    rng = np.random.default_rng(0)
    x, kernel = rng.integers(-127, 128, (4, 4096)), rng.integers(-127, 128, (4096, 3, 2))
    x[:, 0], kernel[0], x[3] = 127, 127, 0
    have = product(jnp.asarray(x, jnp.float32), quantize(kernel, "int8", 0), jnp.float32)
    np.testing.assert_array_equal(have, np.tensordot(x, kernel, 1).astype(np.float32))


@pytest.mark.parametrize("name", LARGEST)
def test_a_hosts_weights_are_rounded_on_the_host_as_a_device_does(name: str) -> None:
    here, there = quantize(random(9, 7), name, 0), quantize(jnp.asarray(random(9, 7)), name, 0)
    assert {type(x) for x in here.values()} == {np.ndarray}
    np.testing.assert_allclose(here["scale"], there["scale"], rtol=1e-6)
    np.testing.assert_array_equal(here["values"].astype(np.float32), there["values"].astype(np.float32))


@functools.cache
def weights() -> tuple[Any, np.ndarray, np.ndarray]:
    """Of the encoder in floats, and patches that it sees."""
    rng = np.random.default_rng(0)
    patches, at = rng.normal(size=(2, 9, 12)).astype(np.float32), np.tile(np.arange(9), (2, 1))
    shapes = jax.eval_shape(ViT(FLOATS, False).init, jax.random.key(0), patches, at)["params"]
    return jax.tree.map(lambda s: rng.normal(0, 0.15, s.shape).astype(np.float32), shapes), patches, at


def taps(config: ViTConfig, params: Any) -> dict[int, np.ndarray]:
    _, patches, at = weights()
    return jax.jit(lambda p: ViT(config, False).apply({"params": p}, patches, at, (2, 4))[1])(params)


@pytest.mark.parametrize(("name", "most"), [("int8", 0.03), ("fp8", 0.1)])
def test_an_encoders_features_stay_near_those_in_float32(name: str, most: float) -> None:
    params, *_ = weights()

    def keep(path: Any, x: np.ndarray) -> Any:
        return quantize(x, name, axis=1) if path_name(path).endswith(("kernel", "qkv")) else x

    kept = params | {"blocks": jax.tree_util.tree_map_with_path(keep, params["blocks"])}
    true, have = taps(FLOATS, params), taps(kept_as(name), kept)
    for layer in (2, 4):
        error = np.sqrt(np.mean((have[layer] - true[layer]) ** 2) / np.mean(true[layer] ** 2))
        assert 1e-4 < error < most


def test_only_frozen_blocks_have_kernels_in_eight_bits() -> None:
    with pytest.raises(ValueError, match="only frozen blocks"):
        dataclasses.replace(kept_as("int8").block, frozen=False)
