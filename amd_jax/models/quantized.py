"""Kernels kept in eight bits, and rows of activations times them.

Symmetric: a kernel has one float32 scale for each output channel, rounded once; an activation one for each
row, the largest of its values at every product. The eight-bit products are added up in 32 bits, then scaled.

Why not a library: of `qwix` (0.1.8) a quantiser and a product would serve, which here are ten lines each. It
would add a dependency and a third to the time that importing jax and flax takes, its arrays are no plain
dicts, which all that names, shards and places parameters goes by, and weights on the host would have to pass
through a device to be rounded.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Of `teacher.dtype`: the type, its largest value, and what its products are added up in.
_TYPES: dict[str, tuple[Any, float, Any]] = {
    "int8": (jnp.int8, 127.0, jnp.int32),
    "fp8": (jnp.float8_e4m3fn, 448.0, jnp.float32),
}
_TINY = 1e-20  # a smaller largest value counts as this: zeros have a scale, too

Kernel = dict[str, Any]  # "values" in eight bits, "scale" of as many axes, 1 long where values share one


def quantize(x: Any, name: str, axis: int) -> Kernel:
    """Rounds so that the largest magnitude along `axis` becomes the largest value of the type.

    Args:
      x: a jax array, or a host's, which stays there.
      name: "int8" or "fp8".
      axis: the one that a product sums over; each place of the others has its scale.
    """
    dtype, largest, _ = _TYPES[name]
    x = x.astype(np.float32)
    scale = abs(x).max(axis, keepdims=True).clip(_TINY) / np.float32(largest)
    values = x / scale
    return {"values": (values.round() if name == "int8" else values).astype(dtype), "scale": scale}


def drawn(init: Callable[..., jax.Array], name: str) -> Callable[..., Any]:
    """The initialiser of a kernel `[inputs, *outputs]` that is kept as `name` says; empty: as it is drawn."""
    return (lambda key, shape: quantize(init(key, shape), name, 0)) if name else init


def product(x: jax.Array, kernel: Kernel, dtype: Any) -> jax.Array:
    """`[rows, inputs]` times a kernel `[inputs, *outputs]`; nobody can differentiate it."""
    values, scale = kernel["values"], kernel["scale"]
    name, _, sums = next((n, *rest) for n, (kept, *rest) in _TYPES.items() if kept == values.dtype)
    rows = quantize(x, name, 1)
    total = jax.lax.dot_general(
        rows["values"], values, (((1,), (0,)), ((), ())), preferred_element_type=sums
    ).astype(jnp.float32)
    of_rows = rows["scale"].reshape(-1, *(1,) * (values.ndim - 1))
    return (total * of_rows * scale).astype(dtype)
