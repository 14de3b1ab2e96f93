"""Softmax attention of queries over keys, by the implementation that a config names."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

Implementation = Literal["xla", "cudnn", "heads"]
# Tokens from which "heads" takes one head after the other: with fewer, all at once are faster on a CPU.
LONG = 128


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: Implementation) -> jax.Array:
    """softmax(q kᵀ / sqrt(width of a head)) v.

    Args:
      q: `[batch, tokens, heads, head width]`; k and v are of the same shape.
      implementation: "xla" or "cudnn" of jax.nn.dot_product_attention, or "heads", see `_by_heads`.

    Returns:
      The shape and type of `q`.
    """
    if implementation == "heads":
        return _by_heads(q, k, v)
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


@jax.custom_vjp
def _by_heads(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Scores again in the backward pass, and of many tokens one head after the other: none are ever kept.

    A head's stay near the cache of a CPU, and memory grows with the batch, not with heads and layers. Softmax
    and sums are float32; the gradient of softmax takes its row sums from output and gradient (FlashAttention,
    arXiv 2205.14135, appendix B.2).
    """
    return _forward(q, k, v)[0]


def _over_heads(head: Callable[[Any], Any], xs: tuple[jax.Array, ...]) -> Any:
    """`head` of each of the arrays' first axis; the third one is the tokens."""
    return jax.lax.map(head, xs) if xs[0].shape[2] >= LONG else jax.vmap(head)(xs)


def _scores(q: jax.Array, k: jax.Array) -> jax.Array:
    """`[batch, queries, keys]` of one head, float32, scaled."""
    scores = jnp.einsum("bth,bsh->bts", q, k, preferred_element_type=jnp.float32)
    return scores / math.sqrt(q.shape[-1])


_heads_first = functools.partial(jnp.transpose, axes=(2, 0, 1, 3))
_heads_back = functools.partial(jnp.transpose, axes=(1, 2, 0, 3))


def _forward(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
    def head(qkv: Any) -> tuple[jax.Array, jax.Array]:
        q, k, v = qkv
        scores = _scores(q, k)
        most = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - most)
        total = weights.sum(axis=-1, keepdims=True)
        out = jnp.einsum("bts,bsh->bth", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return (out / total).astype(v.dtype), most + jnp.log(total)

    by_head = tuple(map(_heads_first, (q, k, v)))
    out, log_total = _over_heads(head, by_head)
    return _heads_back(out), (*by_head, out, log_total)


def _backward(saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    def head(saved: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        q, k, v, out, log_total, g = saved
        weights = jnp.exp(_scores(q, k) - log_total)
        of_weights = jnp.einsum("bth,bsh->bts", g, v, preferred_element_type=jnp.float32)
        mean = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1, keepdims=True)
        of_scores = (weights * (of_weights - mean) / math.sqrt(q.shape[-1])).astype(q.dtype)
        return (
            jnp.einsum("bts,bsh->bth", of_scores, k),
            jnp.einsum("bts,bth->bsh", of_scores, q),
            jnp.einsum("bts,bth->bsh", weights.astype(g.dtype), g),
        )

    of_q, of_k, of_v = map(_heads_back, _over_heads(head, (*saved, _heads_first(g))))
    return of_q, of_k, of_v


_by_heads.defvjp(_forward, _backward)
