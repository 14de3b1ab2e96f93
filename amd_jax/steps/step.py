"""The one train step: every task gives its loss, this gives keys, accumulation, update and metrics."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from amd_jax.steps.train_state import TrainState

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]


class Task(Protocol):
    """What a run trains: `Pretraining` or `Finetuning`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The parts of a batch that the step needs."""

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of one example."""

    @property
    def flops_per_example(self) -> int:
        """Floating-point operations of one example's share of a step."""

    def init(self, key: jax.Array) -> Any:
        """Random trainable parameters."""

    def init_frozen(self, key: jax.Array) -> Any:
        """Random teacher parameters; an empty dict without a teacher."""

    def prepare(self, key: jax.Array, batch: Batch) -> Batch:
        """Everything random about a batch (masks, mixing, drop path), drawn for the whole of it.

        Nothing is applied yet: all arrays have the batch as their first axis, and none is larger than the
        uint8 pixels.
        """

    def batch_loss(self, params: Any, frozen: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
        """Mean loss over the examples of a prepared batch or of a pass's share of it, and its parts."""


def make_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    seed: int,
    accum_steps: int = 1,
    batch_sharding: Any = None,
    ema_decay: float = 0.0,
) -> Step:
    """Build the pure train step.

    What is random in step n is drawn with `fold_in(seed, n)` for the whole global batch, before it is cut for
    accumulation: neither the mesh nor `accum_steps` changes it, and a resumed run repeats it.
    """
    base = jax.random.key(seed)

    def constrain(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, batch_sharding) if batch_sharding else tree

    def gradients(params: Any, frozen: Any, batch: Batch) -> Any:
        grad_fn = jax.value_and_grad(task.batch_loss, has_aux=True)
        if accum_steps == 1:
            return grad_fn(params, frozen, batch)
        # Pass m takes the examples m, m + accum, …, so that each device keeps its own. They are cut out of
        # the batch where they lie: one pass's share is all that is ever copied, or made into floats.
        strided = jax.tree.map(lambda x: x.reshape(-1, accum_steps, *x.shape[1:]), batch)

        def part(m: Any) -> Batch:
            take = functools.partial(jax.lax.dynamic_index_in_dim, index=m, axis=1, keepdims=False)
            return constrain(jax.tree.map(take, strided))

        def accumulate(total: Any, m: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, grad_fn(params, frozen, part(m))), None

        shapes = jax.eval_shape(grad_fn, params, frozen, jax.eval_shape(part, 0))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        summed, _ = jax.lax.scan(accumulate, zeros, jnp.arange(accum_steps))
        return jax.tree.map(lambda x: x / accum_steps, summed)

    def step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = constrain(task.prepare(jax.random.fold_in(base, state.step), batch))
        (loss, parts), grads = gradients(state.params, frozen, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": loss,
            **parts,
            "lr": jnp.asarray(learning_rate(state.step), jnp.float32),
            "grad_norm": optax.tree.norm(grads),
        }
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay:
            ema = optax.incremental_update(params, ema, 1 - ema_decay)
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step
