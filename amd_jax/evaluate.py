"""Top-1 and top-5 accuracy: every example counts exactly once, on any mesh and any number of processes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from amd_jax.config import ConfigError
from amd_jax.data import pipeline, sources
from amd_jax.sharding import global_batch, replicated
from amd_jax.steps.finetune import Finetuning

TOP = 5


def make_evaluator(
    config: ConfigDict, task: Finetuning, mesh: jax.sharding.Mesh
) -> Callable[[Any], dict[str, float]]:
    """A function from parameters to `eval_top1` and `eval_top5` (percent), `eval_loss` and `eval_examples`.

    The last batch is padded so that all have one shape; padding and unreadable images carry no weight.

    Raises:
      ConfigError: the batch does not divide over devices or processes, or labels are not the training ones.
    """
    source = sources.make_source(config.data, "eval")
    batch_size = config.eval.batch_size
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shards:
        raise ConfigError(
            f"eval.batch_size={batch_size} does not divide over {shards} devices; set a multiple"
        )
    if source.num_classes > task.model.classes:
        raise ConfigError(f"evaluation has {source.num_classes} classes, training only {task.model.classes}")

    def count(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits = task.logits(task.model, params, batch["pixels"])
        label, weight = batch["label"], batch["mask"]
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]
        # The rank of the true class is how many others reach its logit: no sorting, ties count against it.
        own = jnp.take_along_axis(logits, label[:, None], axis=1)
        rank = jnp.sum((logits >= own) & (jnp.arange(logits.shape[1]) != label[:, None]), axis=1)
        hits = {"eval_top1": rank < 1, "eval_top5": rank < TOP}
        sums = {name: jnp.sum(hit * weight) for name, hit in hits.items()}
        return sums | {"eval_loss": jnp.sum(loss * weight), "eval_examples": jnp.sum(weight)}

    counted = jax.jit(count, out_shardings=replicated(mesh))

    def evaluate(params: Any) -> dict[str, float]:
        totals: dict[str, float] = {}
        batches = pipeline.eval_batches(
            config,
            source,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for batch in batches:
            sums = jax.device_get(counted(params, global_batch(batch, mesh)))
            totals = {name: totals.get(name, 0.0) + float(value) for name, value in sums.items()}
        examples = max(totals["eval_examples"], 1)
        scale = {"eval_top1": 100 / examples, "eval_top5": 100 / examples, "eval_loss": 1 / examples}
        return {name: value * scale.get(name, 1) for name, value in totals.items()}

    return evaluate
