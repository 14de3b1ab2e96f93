"""Top-1 and top-5 accuracy: every example counts exactly once, on any mesh and any number of processes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from amd_jax.data import pipeline, sources
from amd_jax.evals.evaluation import Evaluation, Scorer, Setting
from amd_jax.sharding import global_batch, replicated
from amd_jax.signals import Interrupted, Stop, never
from amd_jax.steps.finetune import Finetuning

TOP = 5


def evaluation(setting: Setting) -> Evaluation:
    """Accuracy of the model, or of the running mean of its weights where one is kept."""
    score = make_scorer(setting.config, setting.task, setting.test, setting.mesh)
    every = setting.steps(setting.config.eval.every_epochs)
    return Evaluation("accuracy", every, lambda state, stop: score(state.ema or state.params, stop))


def make_scorer(
    config: ConfigDict, task: Finetuning, source: sources.Source, mesh: jax.sharding.Mesh
) -> Scorer:
    """A function from parameters to `eval_top1` and `eval_top5` (percent), `eval_loss` and `eval_examples`.

    The last batch is padded so that all have one shape; padding and unreadable images carry no weight.
    """
    batch_size = config.eval.batch_size

    def count(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits = task.logits(task.model, params, batch["pixels"])
        label, weight = batch["label"], batch["mask"]
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        # The rank of the true class is how many others are not below it: no sorting, and ties and what is not
        # a number count against it.
        own = jnp.take_along_axis(logits, label[:, None], axis=1)
        rank = jnp.sum(~(logits < own) & (jnp.arange(logits.shape[1]) != label[:, None]), axis=1)
        hits = {"eval_top1": rank < 1, "eval_top5": rank < TOP}
        sums = {name: jnp.sum(hit * weight) for name, hit in hits.items()}
        return sums | {"eval_loss": jnp.sum(loss * weight), "eval_examples": jnp.sum(weight)}

    counted = jax.jit(count, out_shardings=replicated(mesh))

    def evaluate(params: Any, stop: Stop = never) -> dict[str, float]:
        totals: dict[str, jax.Array] = {}
        batches = pipeline.eval_batches(
            config,
            source,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for batch in batches:  # sums stay on the devices, which work while the next batch is read
            if stop():
                raise Interrupted
            sums = counted(params, global_batch(batch, mesh))
            totals = jax.tree.map(jnp.add, totals, sums) if totals else sums
        done = {name: float(value) for name, value in jax.device_get(totals).items()}
        examples = max(done["eval_examples"], 1)
        scale = {"eval_top1": 100 / examples, "eval_top5": 100 / examples, "eval_loss": 1 / examples}
        return {name: value * scale.get(name, 1) for name, value in done.items()}

    return evaluate
