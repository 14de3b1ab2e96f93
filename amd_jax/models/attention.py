"""Softmax attention of queries over keys, by the implementation that a config names."""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

Implementation = Literal["xla", "cudnn", "heads", "heads_if_long"]
# Tokens from which "heads_if_long" goes head by head: with fewer, one product for all is as fast on a CPU.
LONG = 128


def attend(q: jax.Array, k: jax.Array, v: jax.Array, implementation: Implementation) -> jax.Array:
    """softmax(q kᵀ / sqrt(width of a head)) v.

    Args:
      q: `[batch, tokens, heads, head width]`; k and v are of the same shape.
      implementation: "xla" or "cudnn" of jax.nn.dot_product_attention; "heads", see `_by_heads`;
        "heads_if_long", the same from `LONG` tokens, and else XLA's.

    Returns:
      The shape and type of `q`.
    """
    if implementation == "heads_if_long":
        implementation = "heads" if q.shape[1] >= LONG else "xla"
    if implementation == "heads":
        return _by_heads(q, k, v)
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


@jax.custom_vjp
def _by_heads(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """One head after the other, and scores again in the backward pass: no more than a head's are ever kept.

    They stay near the cache of a CPU, and memory grows with the batch, not with heads and layers. Softmax and
    sums are float32; the gradient of softmax takes its row sums from output and gradient (FlashAttention,
    arXiv 2205.14135, appendix B.2).
    """
    return _forward(q, k, v)[0]


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
    out, log_total = jax.lax.map(head, by_head)
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

    of_q, of_k, of_v = map(_heads_back, jax.lax.map(head, (*saved, _heads_first(g))))
    return of_q, of_k, of_v


_by_heads.defvjp(_forward, _backward)
