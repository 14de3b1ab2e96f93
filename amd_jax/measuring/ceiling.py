"""The most that these devices do in matrix products, measured: what a step is held against."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

SIZES = {"cpu": 1024}  # of a square matrix; accelerators take larger ones to be busy
LARGE = 8192
WINDOWS, SECONDS = 5, 0.3


def matmul_flops(mesh: jax.sharding.Mesh, dtype: str) -> float:
    """FLOP/s of all devices together in products of large square matrices, each device its own.

    The best of a few windows, at jax's default precision for `dtype`, which is that of the networks.
    """
    size = SIZES.get(mesh.devices.flat[0].platform, LARGE)
    where = NamedSharding(mesh, P(mesh.axis_names))

    def draw(key: jax.Array) -> jax.Array:
        return (jax.random.normal(key, (mesh.size, size, size)) / size**0.5).astype(dtype)

    def repeated(x: jax.Array, w: jax.Array, times: jax.Array) -> jax.Array:
        # Random matrices of this scale neither grow nor vanish, and each product needs the one before.
        return jax.lax.fori_loop(0, times, lambda _, y: jnp.einsum("dij,djk->dik", y, w), x)

    drawn = jax.jit(draw, out_shardings=where)
    x, w = (drawn(jax.random.key(seed)) for seed in range(2))
    products: Any = jax.jit(repeated, out_shardings=where).lower(x, w, 1).compile()

    def seconds(times: int) -> float:
        began = time.perf_counter()
        products(x, w, times).block_until_ready()
        return time.perf_counter() - began

    seconds(1)
    times = max(1, round(SECONDS / seconds(1)))
    best = min(seconds(times) for _ in range(WINDOWS))
    return 2 * size**3 * mesh.size * times / best
