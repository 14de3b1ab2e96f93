"""What frozen encoders know: `python -m amd_jax.probe WORKDIR [...] [--untrained] [--config.KEY=VALUE ...]`.

Each run is read with the config it was trained with; `--config.KEY=VALUE` replaces a key of it in all of the
runs, and a `probe` key is an option of its own as well: `--k=5` is `--config.probe.k=5`.

The encoder sees every patch of the centre crop; the mean of its patch tokens after the final norm, or the CLS
token, is a feature. Two classifiers are fitted on the training split's features and scored on the evaluation
split's: a linear one (linear.py) and the vote of the k nearest neighbours. Pre-training runs do the same
while they train, see `probe.every_epochs`.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax.errors import FlaxError
from ml_collections import ConfigDict
from ml_collections.config_flags.tuple_parser import TupleParser

from amd_jax import exits, patches
from amd_jax.checkpoint import load_params, run_config
from amd_jax.config import KEYS, ConfigError, Key, check_names
from amd_jax.data import pipeline, sources
from amd_jax.data.subset import shuffled_part
from amd_jax.evaluate import Evaluator
from amd_jax.linear import Labelled, linear_probe
from amd_jax.models import build
from amd_jax.models.vit import ViT
from amd_jax.sharding import global_batch, make_mesh, replicated
from amd_jax.signals import Interrupted, Stop, never
from amd_jax.steps.pretrain import Pretraining
from amd_jax.validate import validate_probe

Scores = dict[str, float]
Encode = Callable[[Any, Mapping[str, jax.Array]], tuple[jax.Array, jax.Array, jax.Array]]

SECTION = "probe."
ATTENTION = "model.attention"
EVERY = f"{SECTION}every_epochs"  # the one key of the section that no single probe reads


def make_encoder(config: ConfigDict, mesh: jax.sharding.Mesh) -> Encode:
    """A compiled function from student-encoder parameters and a batch to features, labels and mask.

    Features are float32 `[batch, width]`; all three are whole on every device.
    """
    encoder = build.encoder(config, "student")
    patch, mean, std = build.patch(config), tuple(config.data.mean), tuple(config.data.std)
    # A classifier that pools the mean has its norm behind the pooling, not in the encoder.
    final_norm = config.method not in ("finetune", "kd") or config.finetune.pool == "cls"

    def encode(params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = patches.normalize(patches.patchify(batch["pixels"], patch), mean, std)
        at = jnp.broadcast_to(jnp.arange(encoder.tokens), x.shape[:2])
        out: Any = ViT(encoder, final_norm).apply({"params": params}, x, at)
        tokens = out[0].astype(jnp.float32)
        pooled = tokens[:, 0] if config.probe.pool == "cls" else tokens[:, encoder.cls_token :].mean(axis=1)
        return pooled, batch["label"], batch["mask"]

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
    batches = pipeline.eval_batches(
        config,
        source,
        batch_size=config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    kept, labels = [], []
    for batch in batches:  # fetched one by one: a device need not hold them all beside a training state
        if stop():
            raise Interrupted
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
) -> Evaluator:
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


def initial_params(config: ConfigDict) -> Any:
    """The random weights that a pre-training run of this config draws, whatever `student.weights` says."""
    return jax.jit(Pretraining.from_config(config).init)(jax.random.key(config.seed))


def probe_params(config: ConfigDict, params: Any) -> Scores:
    """Scores of student-encoder parameters on the data that `config` names, outside a run.

    Raises:
      ConfigError: the data are not there.
    """
    # As many devices as share a batch evenly: the run's own mesh may have been another machine's.
    devices = jax.devices()[: math.gcd(config.eval.batch_size, jax.device_count())]
    mesh = make_mesh(devices=devices)
    train, test = sources.make_source(config.data, "train"), sources.make_source(config.data, "eval")
    return make_prober(config, train, test, mesh)(jax.device_put(params, replicated(mesh)))


def probe_run(workdir: str, changes: Mapping[str, Any], untrained: bool = False) -> Scores:
    """Scores of the encoder that a run trained, or of the random weights of its seed.

    Args:
      workdir: of the run.
      changes: config keys that replace the run's own.
      untrained: whether the random weights are wanted.

    Raises:
      ConfigError: there is no such run, a key is wrong, or its weights do not fit the changed keys.
    """
    config = run_config(workdir)
    config.update_from_flattened_dict(dict(changes))
    if ATTENTION not in changes and config.model.attention == "cudnn" and jax.default_backend() != "gpu":
        message = f"{ATTENTION}={config.model.attention!r} needs a GPU; probed with 'xla'"
        print(f"{workdir}: {message}", file=sys.stderr)
        config.model.attention = "xla"
    validate_probe(config)
    params = initial_params(config) if untrained else load_params(workdir)[0]
    try:
        return probe_params(config, params["encoder"])
    except FlaxError as error:
        keys = ", ".join(changes) or "no key changed"
        raise ConfigError(f"{workdir}: its weights do not fit the config with {keys}: {error}") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for everything else that is wrong."""
        raise ConfigError(message)


def _parser() -> argparse.ArgumentParser:
    """Every key of the config as `--config.KEY`; of the `probe` keys the last name is enough."""
    parser = _Parser(
        prog="python -m amd_jax.probe",
        description=__doc__.split(":")[0],
        epilog="--config.KEY=VALUE replaces any other key of the runs, as --config.data.path=DIR.",
        allow_abbrev=False,
    )
    parser.add_argument("workdirs", nargs="+", help="workdirs of runs")
    parser.add_argument("--untrained", action="store_true", help="also the first run's initial weights")
    for name, key in KEYS.items():
        common: dict[str, Any] = {"dest": name, "type": _reader(key), "default": argparse.SUPPRESS}
        common |= {"choices": key.choices or None, "metavar": None if key.choices else "N"}
        parser.add_argument(f"--config.{name}", help=argparse.SUPPRESS, **common)
        if name.startswith(SECTION) and name != EVERY:
            meaning = f"{key.meaning} (default: the run's {name})".replace("%", "%%")
            parser.add_argument(f"--{name.removeprefix(SECTION)}", help=meaning, **common)
    return parser


def _reader(key: Key) -> Callable[[str], Any]:
    """From the text of an option to a value of the key's type, as `--config` of a run reads it."""
    kind = type(key.default)
    parse = {bool: flags.BooleanParser().parse, tuple: TupleParser().parse}.get(kind, kind)

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__}") from error

    return read


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line says; raises ConfigError."""
    check_names(argv, KEYS)
    return _parser().parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table; returns the exit code."""
    try:
        args = _arguments(sys.argv[1:] if argv is None else argv)
        changes = {name: value for name, value in vars(args).items() if name in KEYS}
        rows = [("untrained", args.workdirs[0], True)] if args.untrained else []
        rows += [(Path(workdir).name, workdir, False) for workdir in args.workdirs]
        results = [(name, probe_run(workdir, changes, untrained)) for name, workdir, untrained in rows]
    except Exception as error:
        return exits.told(error)
    print(f"{'encoder':<16}{'linear probe, top-1 %':>22}{'kNN, top-1 %':>14}")
    for name, scores in results:
        print(f"{name:<16}{scores['probe_top1']:>22.1f}{scores['knn_top1']:>14.1f}")
    for workdir in args.workdirs:
        pictures = sorted((Path(workdir) / "pictures").glob("*.png"))
        where = f"pictures {pictures[-1]}, " if pictures else ""
        print(f"{Path(workdir).name}: {where}TensorBoard logs {workdir}")
    return exits.DONE


if __name__ == "__main__":
    sys.exit(main())
