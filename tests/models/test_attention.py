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


def drawn(tokens: int, dtype: str) -> list[jax.Array]:
    """q, k, v and the gradient of an output; scores reach ±20."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(3 * rng.standard_normal((2, tokens, 3, 8)), dtype) for _ in range(4)]


@functools.partial(jax.jit, static_argnums=4)
def run(q: Any, k: Any, v: Any, g: Any, implementation: Any) -> tuple[jax.Array, ...]:
    """The output and the gradients."""
    out, pull = jax.vjp(lambda *x: attend(*x, implementation), q, k, v)
    return out, *pull(g)


@pytest.mark.parametrize("tokens", [21, LONG])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 0.02)])
def test_it_is_xlas_attention(tokens: int, dtype: str, tolerance: float) -> None:
    given = drawn(tokens, dtype)
    exact = run(*(x.astype(jnp.float32) for x in given), "xla")
    for ours, theirs in zip(run(*given, "heads"), exact, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(
            ours.astype(jnp.float32), theirs, rtol=0, atol=tolerance * abs(theirs).max()
        )


@pytest.mark.parametrize("tokens", [LONG - 1, LONG])
def test_of_many_tokens_there_are_never_scores_of_all_heads(tokens: int) -> None:
    x = jnp.zeros((2, tokens, 3, 8))
    text = str(jax.make_jaxpr(lambda x: jax.vjp(lambda x: attend(x, x, x, "heads"), x)[1](x))(x))
    largest = max(math.prod(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", text))
    assert largest == (2 * 3 if tokens < LONG else 2) * tokens**2
