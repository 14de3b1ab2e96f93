"""Linear probe of frozen encoders: `python -m amd_jax.probe WORKDIR [WORKDIR ...] [--untrained]`.

The encoder sees every patch of the centre crop; its patch tokens after the final norm are averaged. On these
features, standardised with the training split's mean and spread (MAE's BatchNorm without affine, as a fixed
statistic), a multinomial logistic regression is fitted to convergence, so nothing depends on its schedule.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from amd_jax import patches
from amd_jax.checkpoint import load_params, run_config
from amd_jax.config import ConfigError
from amd_jax.data import pipeline, sources
from amd_jax.models import build
from amd_jax.models.vit import ViT
from amd_jax.steps.pretrain import Pretraining

BATCH = 200  # examples encoded at a time
WEIGHT_DECAY = 1e-4  # of the regression; enough to keep separable classes finite
ITERATIONS = 200


def make_encoder(config: ConfigDict) -> Callable[[Any, jax.Array], jax.Array]:
    """A compiled function from student-encoder parameters and pixels to features `[batch, width]`."""
    encoder = build.encoder(config, "student")
    patch, mean, std = build.patch(config), tuple(config.data.mean), tuple(config.data.std)

    @jax.jit
    def encode(params: Any, pixels: jax.Array) -> jax.Array:
        x = patches.normalize(patches.patchify(pixels, patch), mean, std)
        at = jnp.broadcast_to(jnp.arange(encoder.tokens), x.shape[:2])
        out: Any = ViT(encoder).apply({"params": params}, x, at)
        return out[0][:, encoder.cls_token :].mean(axis=1)

    return encode


def features(
    encode: Callable[[Any, jax.Array], jax.Array], params: Any, config: ConfigDict, split: sources.Split
) -> tuple[np.ndarray, np.ndarray]:
    """Features `[examples, width]` and labels `[examples]` of a whole split, without augmentation."""
    source = sources.make_source(config.data, split)
    kept, labels = [], []
    for batch in pipeline.eval_batches(config, source, batch_size=BATCH, process_index=0, process_count=1):
        real = batch["mask"] > 0
        kept.append(np.asarray(encode(params, jnp.asarray(batch["pixels"])))[real])
        labels.append(batch["label"][real])
    return np.concatenate(kept), np.concatenate(labels)


def fit_linear(x: np.ndarray, labels: np.ndarray, classes: int) -> Any:
    """Multinomial logistic regression by L-BFGS from zero: `{"kernel": [width, classes], "bias"}`."""
    targets = jnp.asarray(labels)

    def loss(w: Any) -> jax.Array:
        logits = x @ w["kernel"] + w["bias"]
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return fit + 0.5 * WEIGHT_DECAY * jnp.sum(jnp.square(w["kernel"]))

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)
    w = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}

    def iterate(carry: Any, _: None) -> tuple[Any, None]:
        w, state = carry
        value, grad = value_and_grad(w, state=state)
        updates, state = solver.update(grad, state, w, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(w, updates), state), None

    (w, _), _ = jax.jit(lambda c: jax.lax.scan(iterate, c, length=ITERATIONS))((w, solver.init(w)))
    return w


def linear_probe(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], classes: int
) -> float:
    """Top-1 accuracy on `test`, in percent, of a linear classifier fitted on `train`."""
    mean, std = train[0].mean(axis=0), train[0].std(axis=0) + 1e-6
    w = fit_linear((train[0] - mean) / std, train[1], classes)
    logits = (test[0] - mean) / std @ w["kernel"] + w["bias"]
    return 100 * float(np.mean(np.argmax(logits, axis=1) == test[1]))


def probe_run(workdir: str, untrained: bool = False) -> float:
    """Linear-probe accuracy of the encoder that a run trained, or of the weights it started from."""
    config = run_config(workdir)
    if untrained:
        params = jax.jit(Pretraining.from_config(config).init)(jax.random.key(config.seed))
    else:
        params, _ = load_params(workdir)
    encode = make_encoder(config)
    train, test = (features(encode, params["encoder"], config, split) for split in ("train", "eval"))
    classes = sources.make_source(config.data, "train").num_classes
    return linear_probe(train, test, classes)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m amd_jax.probe", description=__doc__.split("\n")[0])
    parser.add_argument("workdirs", nargs="+", help="workdirs of runs")
    parser.add_argument("--untrained", action="store_true", help="also the first run's initial weights")
    args = parser.parse_args(argv)
    try:
        rows = [("untrained", args.workdirs[0], True)] if args.untrained else []
        rows += [(Path(workdir).name, workdir, False) for workdir in args.workdirs]
        results = [(name, probe_run(workdir, untrained)) for name, workdir, untrained in rows]
    except ConfigError as error:
        print("error:", error, file=sys.stderr)
        return 2
    print(f"{'encoder':<16}{'linear probe, top-1 %':>22}")
    for name, accuracy in results:
        print(f"{name:<16}{accuracy:>22.1f}")
    for workdir in args.workdirs:
        pictures = sorted((Path(workdir) / "pictures").glob("*.png"))
        where = f"pictures {pictures[-1]}, " if pictures else ""
        print(f"{Path(workdir).name}: {where}TensorBoard logs {workdir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
