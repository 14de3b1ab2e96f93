"""What frozen encoders know: `python -m amd_jax.probe WORKDIR [...] [--untrained] [--config.KEY=VALUE ...]`.

Each run is read with the config it was trained with; `--config.KEY=VALUE` replaces a key of it in all of the
runs, and a `probe` key is an option of its own as well: `--k=5` is `--config.probe.k=5`. What is computed is
in evals/features.py; pre-training runs do the same while they train (`probe.every_epochs`).
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
from absl import flags
from flax.errors import FlaxError
from ml_collections import ConfigDict
from ml_collections.config_flags.tuple_parser import TupleParser

from amd_jax import compilation_cache, exits, hardware
from amd_jax.buckets import place
from amd_jax.config import KEYS, Key, check_names
from amd_jax.data import sources
from amd_jax.errors import ConfigError
from amd_jax.evals.features import Scores, make_prober
from amd_jax.sharding import make_mesh, replicated
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train.program import need_labels
from amd_jax.train.validate import validate_probe
from amd_jax.workdir import load_params, run_config

SECTION = "probe."
ATTENTION = "model.attention"
EVERY = f"{SECTION}every_epochs"  # the one key of the section that no single probe reads


def initial_params(config: ConfigDict) -> Any:
    """The random weights that a pre-training run of this config draws, whatever `student.weights` says."""
    return jax.jit(Pretraining.from_config(config).init)(jax.random.key(config.seed))


def probe_params(config: ConfigDict, params: Any) -> Scores:
    """Scores of student-encoder parameters on the data that `config` names, outside a run.

    Raises:
      UserError: the data are not there, or have no labels.
    """
    # As many devices as share a batch evenly: the run's own mesh may have been another machine's.
    devices = jax.devices()[: math.gcd(config.eval.batch_size, jax.device_count())]
    mesh = make_mesh(devices=devices)
    config = hardware.resolved(config, mesh.devices.flat[0].platform)
    splits: tuple[sources.Split, ...] = ("train", "eval")
    train, test = (_labelled(config, split) for split in splits)
    return make_prober(config, train, test, mesh)(jax.device_put(params, replicated(mesh)))


def probe_run(workdir: str, changes: Mapping[str, Any], untrained: bool = False) -> Scores:
    """Scores of the encoder that a run trained, or of the random weights of its seed.

    Args:
      workdir: of the run.
      changes: config keys that replace the run's own.
      untrained: whether the random weights are wanted.

    Raises:
      UserError: there is no such run, a key is wrong, or its weights do not fit the changed keys.
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


def _labelled(config: ConfigDict, split: sources.Split) -> sources.Source:
    source = sources.make_source(config.data, split)
    need_labels(config, split, source.num_classes, "a probe")
    return source


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
    if key.pair:
        parse = _one_or_two

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__}") from error

    return read


def _one_or_two(text: str) -> Any:
    values = TupleParser().parse(text)
    return values if len(values) > 1 else values[0]


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line says; raises ConfigError."""
    check_names(argv, KEYS)
    return _parser().parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table; returns the exit code."""
    try:
        args = _arguments(sys.argv[1:] if argv is None else argv)
        compilation_cache.enable()
        changes = {name: value for name, value in vars(args).items() if name in KEYS}
        rows = [("untrained", args.workdirs[0], True)] if args.untrained else []
        rows += [(place(workdir).name, workdir, False) for workdir in args.workdirs]
        results = [(name, probe_run(workdir, changes, untrained)) for name, workdir, untrained in rows]
    except Exception as error:
        return exits.told(error)
    print(f"{'encoder':<16}{'linear probe, top-1 %':>22}{'kNN, top-1 %':>14}")
    for name, scores in results:
        print(f"{name:<16}{scores['probe_top1']:>22.1f}{scores['knn_top1']:>14.1f}")
    for workdir in args.workdirs:
        pictures = sorted((place(workdir) / "pictures").glob("*.png"))
        where = f"pictures {pictures[-1]}, " if pictures else ""
        print(f"{place(workdir).name}: {where}TensorBoard logs {workdir}")
    return exits.DONE


if __name__ == "__main__":
    sys.exit(main())
