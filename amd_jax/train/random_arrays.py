"""Random arrays on the devices of a program: the weights a run starts from, and a batch for whoever times."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from amd_jax.sharding import global_batch
from amd_jax.train.program import Program, where

# Weights are drawn once: on the CPU, optimising that code takes longer than it saves, and for many of them
# all but the first of the compiler's levels do.
QUICK_COMPILE: dict[str, Any] = {"xla_backend_optimization_level": 0}
_FOR_MANY: dict[str, Any] = {"xla_backend_optimization_level": 1}
_MANY = 10_000_000


def draw(init: Callable[..., Any], seed: int, abstract: Any, *given: Any) -> Any:
    """Random weights, made on the devices that `abstract` places them on; `given` arrays are used up."""
    shardings = where(abstract)
    (platform,) = {d.platform for s in jax.tree.leaves(shardings) for d in s.device_set}
    many = sum(x.size for x in jax.tree.leaves(abstract)) >= _MANY
    options = (_FOR_MANY if many else QUICK_COMPILE) if platform == "cpu" else None
    donated = tuple(range(1, 1 + len(given)))
    jitted = jax.jit(init, out_shardings=shardings, donate_argnums=donated, compiler_options=options)
    return jitted(jax.random.key(seed), *given)


def random_batch(program: Program, classes: int, seed: int = 0) -> dict[str, jax.Array]:
    """A batch of noise, with labels below `classes`; every process makes its own part."""
    rng = np.random.default_rng([seed, jax.process_index()])
    below = {"pixels": 256, "label": classes}
    shares = {name: x.shape[0] // jax.process_count() for name, x in program.batch.items()}
    arrays = {
        name: rng.integers(0, below[name], (shares[name], *x.shape[1:]), x.dtype)
        for name, x in program.batch.items()
    }
    return global_batch(arrays, program.mesh)
