"""Top-1 and top-5 accuracy: every example counts exactly once, on any mesh and any number of processes.

Between epochs an example is scored by one view. At the end, where `eval.clips` or `eval.crops` says so, it is
by many: by the mean of their softmax outputs, as in the released tests of videos.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from amd_jax.data import sources
from amd_jax.evals import batches
from amd_jax.evals.averaging import by_example, over_views
from amd_jax.evals.evaluation import Evaluation, Scorer, Setting
from amd_jax.sharding import global_batch, replicated
from amd_jax.signals import Stop, never
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.train_state import TrainState

TOP = 5


def evaluation(setting: Setting) -> Evaluation:
    """Accuracy of the model, or of the running mean of its weights where one is kept."""
    score = make_scorer(setting.config, setting.task, setting.test, setting.mesh)
    every = setting.steps(setting.config.eval.every_epochs)
    return Evaluation("accuracy", every, _of_model(score), mark="eval_top1")


def of_many_views(setting: Setting) -> Evaluation | None:
    """The same by many views, at the end; None where `eval.clips` and `eval.crops` are 1."""
    clips, crops = setting.config.eval.clips, setting.config.eval.crops
    if clips * crops == 1:
        return None
    score = make_scorer(setting.config, setting.task, setting.test, setting.mesh, clips, crops, "test")
    return Evaluation("views", 0, _of_model(score), mark="test_top1")


def _of_model(score: Scorer) -> Callable[[TrainState, Stop], dict[str, float]]:
    return lambda state, stop: score(state.ema or state.params, stop)


def make_scorer(
    config: ConfigDict,
    task: Finetuning,
    source: sources.Source,
    mesh: jax.sharding.Mesh,
    clips: int = 1,
    crops: int = 1,
    name: str = "eval",
) -> Scorer:
    """A function from parameters to `NAME_top1`, `NAME_top5` (percent), `NAME_loss` and `NAME_examples`.

    The last batch is padded so that all have one shape; padding and unreadable examples carry no weight.
    """
    views = clips * crops

    def logits_of(params: Any, pixels: jax.Array) -> jax.Array:
        """`[examples, classes]`; of many views, the logarithm of their mean probabilities."""
        if views == 1:
            return task.logits(task.model, params, pixels)
        probabilities = over_views(
            lambda view: jax.nn.softmax(task.logits(task.model, params, view)), pixels, views
        )
        return jnp.log(probabilities)

    def count(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits = logits_of(params, batch["pixels"])
        label, weight = by_example(batch["label"], views), by_example(batch["mask"], views)
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        # The rank of the true class is how many others are not below it: no sorting, and ties and what is not
        # a number count against it.
        own = jnp.take_along_axis(logits, label[:, None], axis=1)
        rank = jnp.sum(~(logits < own) & (jnp.arange(logits.shape[1]) != label[:, None]), axis=1)
        sums = {"top1": rank < 1, "top5": rank < TOP, "loss": loss, "examples": jnp.ones_like(weight)}
        return {f"{name}_{key}": jnp.sum(value * weight) for key, value in sums.items()}

    counted = jax.jit(count, out_shardings=replicated(mesh))

    def evaluate(params: Any, stop: Stop = never) -> dict[str, float]:
        totals: dict[str, jax.Array] = {}
        # Sums stay on the devices, which work while the next batch is read.
        for batch in batches.until(stop, config, source, clips, crops):
            sums = counted(params, global_batch(batch, mesh))
            totals = jax.tree.map(jnp.add, totals, sums) if totals else sums
        done = {key: float(value) for key, value in jax.device_get(totals).items()}
        examples = max(done[f"{name}_examples"], 1)
        scale = {"top1": 100 / examples, "top5": 100 / examples, "loss": 1 / examples}
        return {key: value * scale.get(key.removeprefix(f"{name}_"), 1) for key, value in done.items()}

    return evaluate
