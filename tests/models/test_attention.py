"""Attention head by head is attention, in outputs and gradients, and keeps no scores of all heads."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax.models.attention import LONG, attend

SHAPE = (2, 21, 3, 8)


def drawn(dtype: str = "float32") -> list[jax.Array]:
    """q, k, v and the gradient of an output; scores reach ±20."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(3 * rng.standard_normal(SHAPE), dtype) for _ in range(4)]


@functools.partial(jax.jit, static_argnums=4)
def run(q: Any, k: Any, v: Any, g: Any, implementation: Any) -> tuple[jax.Array, ...]:
    """The output and the gradients."""
    out, pull = jax.vjp(lambda *x: attend(*x, implementation), q, k, v)
    return out, *pull(g)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 0.02)])
def test_it_is_xlas_attention(dtype: str, tolerance: float) -> None:
    exact = run(*(x.astype(jnp.float32) for x in drawn(dtype)), "xla")
    for ours, theirs in zip(run(*drawn(dtype), "heads"), exact, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(
            ours.astype(jnp.float32), theirs, rtol=0, atol=tolerance * abs(theirs).max()
        )


@pytest.mark.parametrize("tokens", [LONG - 1, LONG])
def test_only_from_so_many_tokens_are_no_scores_of_all_heads_kept(tokens: int) -> None:
    x = jnp.zeros((2, tokens, 3, 8))
    text = str(jax.make_jaxpr(lambda x: jax.vjp(lambda x: attend(x, x, x, "heads_if_long"), x)[1](x))(x))
    largest = max(math.prod(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", text))
    assert largest == (2 * 3 if tokens < LONG else 2) * tokens**2
