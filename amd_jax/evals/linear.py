"""Linear classifiers on fixed features: logistic regression to convergence, and MAE's linear probe."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

Labelled = tuple[np.ndarray, np.ndarray]  # features [examples, width], labels [examples]

WEIGHT_DECAY = 1e-4  # of the regression; enough to keep separable classes finite
ITERATIONS = 200  # of L-BFGS
EPS, MOMENTUM = 1e-6, 0.1  # of MAE's BatchNorm; momentum as PyTorch counts it
TRUST, SGD_MOMENTUM = 0.001, 0.9  # of MAE's LARS


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a probe is fitted by epochs; fields as the `probe` keys of the config."""

    optimizer: str
    epochs: int
    batch_size: int
    base_lr: float
    warmup_epochs: int


class Head(NamedTuple):
    """BatchNorm without affine and a linear layer, with the state of its optimiser."""

    w: Any  # {"kernel": [width, classes], "bias": [classes]}
    mean: jax.Array  # [width], running
    var: jax.Array  # [width], running, unbiased
    solver: Any


def linear_probe(train: Labelled, test: Labelled, classes: int, options: ConfigDict) -> float:
    """Top-1 accuracy on `test`, in percent, of a linear classifier fitted on `train`.

    Args:
      train: features and labels to fit.
      test: features and labels to score.
      classes: how many there are.
      options: the `probe` section of a config. "lbfgs" reads nothing else of it.
    """
    if options.optimizer == "lbfgs":
        mean, std = train[0].mean(axis=0), train[0].std(axis=0) + EPS
        w = fit_to_convergence(*jax.device_put(((train[0] - mean) / std, train[1])), classes)
    else:
        recipe = Recipe(**{field.name: options[field.name] for field in dataclasses.fields(Recipe)})
        head = fit_by_epochs(*jax.device_put(train), classes, recipe)
        mean, var = jax.device_get((head.mean, head.var))
        w, std = head.w, np.sqrt(var + EPS)
    scored = jax.device_put(((test[0] - mean) / std, test[1]))
    return 100 * float(jax.device_get(_accuracy(w, *scored)))


def _logits(w: Any, x: jax.Array) -> jax.Array:
    return x @ w["kernel"] + w["bias"]


def _cross_entropy(w: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(_logits(w, x), labels).mean()


@jax.jit
def _accuracy(w: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(_logits(w, x), axis=1) == labels)


@functools.partial(jax.jit, static_argnames="classes")
def fit_to_convergence(x: jax.Array, labels: jax.Array, classes: int) -> Any:
    """Multinomial logistic regression by L-BFGS from zero: `{"kernel": [width, classes], "bias"}`."""

    def loss(w: Any) -> jax.Array:
        return _cross_entropy(w, x, labels) + 0.5 * WEIGHT_DECAY * jnp.sum(jnp.square(w["kernel"]))

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def iterate(carry: Any, _: None) -> tuple[Any, None]:
        w, state = carry
        value, grad = value_and_grad(w, state=state)
        updates, state = solver.update(grad, state, w, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(w, updates), state), None

    w = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}
    (w, _), _ = jax.lax.scan(iterate, (w, solver.init(w)), length=ITERATIONS)
    return w


def lars(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """LARS of MAE's util/lars.py: biases are neither scaled nor decayed, and nothing else is decayed here.

    The parts are optax.lars's in another order: there the rate goes into the momentum, so a schedule would
    act late; here it multiplies the momentum.
    """
    scale = optax.scale_by_trust_ratio(trust_coefficient=TRUST)
    return optax.chain(
        optax.masked(scale, lambda w: jax.tree.map(lambda x: x.ndim > 1, w)),
        optax.trace(SGD_MOMENTUM),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """AdamW without decay."""
    return optax.adamw(learning_rate, weight_decay=0)


def start(key: jax.Array, width: int, classes: int, solver: optax.GradientTransformation) -> Head:
    """A head that has seen nothing; its weights have standard deviation 0.01."""
    w = {"kernel": 0.01 * jax.random.normal(key, (width, classes)), "bias": jnp.zeros(classes)}
    return Head(w, jnp.zeros(width), jnp.ones(width), solver.init(w))


def make_step(
    solver: optax.GradientTransformation,
) -> Callable[[Head, jax.Array, jax.Array], Head]:
    """A function from head, features `[batch, width]` and labels `[batch]` to the head one step later."""

    def step(head: Head, x: jax.Array, labels: jax.Array) -> Head:
        mean, var = x.mean(axis=0), x.var(axis=0)
        normal = (x - mean) * jax.lax.rsqrt(var + EPS)
        grad = jax.grad(_cross_entropy)(head.w, normal, labels)
        updates, state = solver.update(grad, head.solver, head.w)
        unbiased = var * (len(x) / max(len(x) - 1, 1))
        return Head(
            optax.apply_updates(head.w, updates),
            optax.incremental_update(mean, head.mean, MOMENTUM),
            optax.incremental_update(unbiased, head.var, MOMENTUM),
            state,
        )

    return step


@functools.partial(jax.jit, static_argnames=("classes", "recipe"))
def fit_by_epochs(x: jax.Array, labels: jax.Array, classes: int, recipe: Recipe) -> Head:
    """MAE's linear probe: reshuffled batches, warm-up and half a cosine to 0; what fills no batch waits.

    Args:
      x: features `[examples, width]`.
      labels: `[examples]`.
      classes: how many there are.
      recipe: lengths, rate and optimiser.
    """
    batch = min(recipe.batch_size, len(x))
    batches = len(x) // batch
    rate = optax.warmup_cosine_decay_schedule(
        0.0, recipe.base_lr * batch / 256, recipe.warmup_epochs * batches, recipe.epochs * batches
    )
    solver = {"lars": lars, "adamw": adamw}[recipe.optimizer](rate)
    step = make_step(solver)
    first, *keys = jax.random.split(jax.random.key(0), 1 + recipe.epochs)

    def epoch(head: Head, key: jax.Array) -> tuple[Head, None]:
        order = jax.random.permutation(key, len(x))[: batches * batch].reshape(batches, batch)
        return jax.lax.scan(lambda head, rows: (step(head, x[rows], labels[rows]), None), head, order)

    head, _ = jax.lax.scan(epoch, start(first, x.shape[1], classes, solver), jnp.stack(keys))
    return head
