"""What a frozen encoder knows: a linear probe and kNN.

The encoder sees every patch of the centre crop; the mean of its patch tokens after the final norm, or the CLS
token, is a feature. With `eval.clips` and `eval.crops` it is averaged over so many views. Two classifiers are
fitted on the training split's features and scored on the evaluation split's: a linear one (linear.py) and the
vote of the k nearest neighbours.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.data import sources
from amd_jax.data.subset import shuffled_part
from amd_jax.evals import batches
from amd_jax.evals.averaging import by_example, over_views
from amd_jax.evals.evaluation import Evaluation, Scorer, Setting
from amd_jax.evals.linear import Labelled, linear_probe
from amd_jax.models import build, patches
from amd_jax.models.vit import ViT
from amd_jax.sharding import global_batch, replicated
from amd_jax.signals import Interrupted, Stop, never

Scores = dict[str, float]
Encode = Callable[[Any, Mapping[str, jax.Array]], tuple[jax.Array, jax.Array, jax.Array]]


def evaluation(setting: Setting) -> Evaluation | None:
    """Probe and kNN of the student's encoder; None where `probe.every_epochs` is 0, or without labels."""
    every = setting.steps(setting.config.probe.every_epochs)
    if not (every and setting.train.num_classes and setting.test.num_classes):
        return None
    score = make_prober(setting.config, setting.train, setting.test, setting.mesh)
    return Evaluation(
        "probe", every, lambda state, stop: score(state.params["encoder"], stop), mark="probe_top1"
    )


def make_encoder(config: ConfigDict, mesh: jax.sharding.Mesh) -> Encode:
    """A compiled function from student-encoder parameters and a batch to features, labels and mask.

    Features are float32 `[examples, width]`; all three are whole on every device.
    """
    encoder = build.encoder(config, "student")
    patch, mean, std = build.patch(config), tuple(config.data.mean), tuple(config.data.std)
    # A classifier that pools the mean has its norm behind the pooling, not in the encoder.
    final_norm = not methods.of(config).labels or config.finetune.pool == "cls"

    views = config.eval.clips * config.eval.crops

    def pooled(params: Any, pixels: jax.Array) -> jax.Array:
        x = patches.normalize(patches.patchify(pixels, patch), mean, std)
        at = jnp.broadcast_to(jnp.arange(encoder.tokens), x.shape[:2])
        out: Any = ViT(encoder, final_norm).apply({"params": params}, x, at)
        tokens = out[0].astype(jnp.float32)
        return tokens[:, 0] if config.probe.pool == "cls" else tokens[:, encoder.cls_token :].mean(axis=1)

    def encode(params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = over_views(lambda pixels: pooled(params, pixels), batch["pixels"], views)
        return x, by_example(batch["label"], views), by_example(batch["mask"], views)

    return jax.jit(encode, out_shardings=replicated(mesh))


def features(
    encode: Encode,
    params: Any,
    config: ConfigDict,
    source: sources.Source,
    mesh: jax.sharding.Mesh,
    stop: Stop = never,
) -> Labelled:
    """Features `[examples, width]` and labels `[examples]` of a whole source, alike in all processes.

    Every example comes once and in order, without augmentation; unreadable ones are left out. Raises
    Interrupted where `stop`, asked before each batch, says so.
    """
    kept, labels = [], []
    # Fetched one by one: a device need not hold them all beside a training state.
    for batch in batches.until(stop, config, source, config.eval.clips, config.eval.crops):
        x, label, mask = jax.device_get(encode(params, global_batch(batch, mesh)))
        kept.append(x[mask > 0])
        labels.append(label[mask > 0])
    return np.concatenate(kept), np.concatenate(labels)


def knn(
    train: Labelled, test: Labelled, classes: int, k: int = 20, temperature: float = 0.07, chunk: int = 256
) -> float:
    """Top-1 accuracy on `test`, in percent, of the weighted vote of the `k` nearest of `train`.

    Neighbours are near in cosine similarity s and weigh exp(s / temperature) (Wu et al. 2018; DINO's
    eval_knn). Only `chunk` rows of `test` are compared with all of `train` at a time.
    """
    k = min(k, len(train[0]))
    right = _knn(*jax.device_put((train, test, np.float32(temperature))), classes, k, chunk)
    return 100 * float(jax.device_get(right))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _knn(train: Any, test: Any, temperature: jax.Array, classes: int, k: int, chunk: int) -> jax.Array:
    (memory, labels), (queries, targets) = train, test

    def unit(x: jax.Array) -> jax.Array:
        return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    memory = unit(memory)

    def predict(query: jax.Array) -> jax.Array:
        near, at = jax.lax.top_k(memory @ query, k)
        weights = jnp.exp((near - near[0]) / temperature)  # the nearest weighs 1, so nothing overflows
        return jnp.argmax(weights @ jax.nn.one_hot(labels[at], classes))

    return jnp.mean(jax.lax.map(predict, unit(queries), batch_size=chunk) == targets)


def make_prober(
    config: ConfigDict, train_source: sources.Source, eval_source: sources.Source, mesh: jax.sharding.Mesh
) -> Scorer:
    """A function from student-encoder parameters to `probe_top1` and `knn_top1`, in percent.

    Encoding is shared over `mesh`; the classifiers are then fitted by each process for itself, alike. A stop
    is noticed before each batch and before each of the two classifiers, which are one program each: at most
    200 iterations of L-BFGS or `probe.epochs` epochs on the features, or one pass of neighbours.
    """
    encode, p = make_encoder(config, mesh), config.probe
    classes = train_source.num_classes
    fitted = shuffled_part(train_source, p.examples) if p.examples else train_source

    def probe(params: Any, stop: Stop = never) -> Scores:
        train, test = (
            features(encode, params, config, source, mesh, stop) for source in (fitted, eval_source)
        )
        scores: Scores = {}
        classifiers = {
            "probe_top1": lambda: linear_probe(train, test, classes, p),
            "knn_top1": lambda: knn(train, test, classes, p.k, p.temperature),
        }
        # TPUs and GPUs would round the products, which L-BFGS's line search and close neighbours notice.
        with jax.default_matmul_precision("highest"):
            for name, top1 in classifiers.items():
                if stop():
                    raise Interrupted
                scores[name] = top1()
        return scores

    return probe
