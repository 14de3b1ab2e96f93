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

    @property
    def eight_bit_flops_per_example(self) -> int:
        """Those of them that a teacher does in eight bits."""

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
    shards = _shards(batch_sharding)

    def constrain(tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, batch_sharding) if batch_sharding else tree

    def gradients(params: Any, frozen: Any, batch: Batch) -> Any:
        grad_fn = jax.value_and_grad(task.batch_loss, has_aux=True)
        if accum_steps == 1:
            return grad_fn(params, frozen, batch)
        if shards > 1:
            grad_fn = _by_shard(grad_fn, batch_sharding, shards)
        # Pass m takes the examples m, m + accum, …, so that each device keeps its own. They are cut out of
        # the batch where they lie: one pass's share is all that is ever copied, or made into floats. A
        # part of the masks may be empty, so no length is left to be found out.
        strided = jax.tree.map(lambda x: x.reshape(len(x) // accum_steps, accum_steps, *x.shape[1:]), batch)

        def part(m: Any) -> Batch:
            take = functools.partial(jax.lax.dynamic_index_in_dim, index=m, axis=1, keepdims=False)
            return constrain(jax.tree.map(take, strided))

        def accumulate(total: Any, m: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, grad_fn(params, frozen, part(m))), None

        shapes = jax.eval_shape(grad_fn, params, frozen, jax.eval_shape(part, 0))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        summed, _ = jax.lax.scan(accumulate, zeros, jnp.arange(accum_steps))
        means = jax.tree.map(lambda x: x / accum_steps, summed)
        return jax.tree.map(lambda x: x.mean(axis=0), means) if shards > 1 else means

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


def _shards(batch_sharding: Any) -> int:
    """How many devices share the examples, and nothing else; 1: devices share parameters as well, or alone.

    Where parameters are shared too, no device could hold all gradients of its own.
    """
    if batch_sharding is None:
        return 1
    mesh = batch_sharding.mesh
    return mesh.shape["data"] if mesh.shape["data"] == mesh.size else 1


def _by_shard(grad_fn: Callable[..., Any], batch_sharding: Any, shards: int) -> Callable[..., Any]:
    """`grad_fn` of each device's examples, `[shards, …]`, each on its own device.

    Passes are added up there, and devices once, after the last pass. Otherwise every pass would add up the
    gradients of all devices.
    """
    mesh, axes = batch_sharding.mesh, batch_sharding.spec[0]

    def own(x: jax.Array) -> jax.Array:
        rest = (jax.sharding.PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
        where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axes, *rest))
        return jax.lax.with_sharding_constraint(x, where)

    def gradients(params: Any, frozen: Any, batch: Any) -> Any:
        cut = jax.tree.map(lambda x: own(x.reshape(shards, len(x) // shards, *x.shape[1:])), batch)
        one = jax.vmap(grad_fn, in_axes=(None, None, 0), spmd_axis_name=axes)
        return jax.tree.map(own, one(params, frozen, cut))

    return gradients
