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
