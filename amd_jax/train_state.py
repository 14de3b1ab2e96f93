"""What training changes, and so what a checkpoint holds. The frozen teacher is not part of it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """Parameters and optimiser state after `step` updates."""

    step: jax.Array  # int32 scalar
    params: Any  # nested dict of float32 arrays
    opt_state: Any
    ema: Any = struct.field(default_factory=dict)  # running mean of params; empty where none is kept

    @classmethod
    def create(cls, params: Any, optimizer: optax.GradientTransformation, ema: bool = False) -> "TrainState":
        """The state before the first update."""
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params), params if ema else {})


def path_name(path: tuple[Any, ...]) -> str:
    """A parameter's name, as `encoder/blocks/layers/attn/qkv`, from a `jax.tree_util` path."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
