"""Command line: `python -m amd_jax.main --config=configs/vitb_in1k.py --workdir=DIR [--config.KEY=VALUE]`.

Exit codes: 0 done; 2 something in the command, config, data or weights has to change; 3 the loss is not
finite; 75 stopped by a signal with everything saved, so the same command goes on.
"""

import difflib
import os
import re
import sys
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from amd_jax.config import KEYS, ConfigError

EXIT_USAGE, EXIT_NON_FINITE, EXIT_STOPPED = 2, 3, 75

_CONFIG = config_flags.DEFINE_config_file("config", None, "a file of configs/, FILE.py or FILE.py:ARGUMENT")
_WORKDIR = flags.DEFINE_string("workdir", None, "where checkpoints, metrics and pictures of the run go")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "this is one of several processes; a TPU pod, SLURM, Kubernetes or MPI says which"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "elsewhere: HOST:PORT of process 0, for --distributed"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "elsewhere: how many processes there are")
_PROCESS = flags.DEFINE_integer("process", None, "elsewhere: the number of this one, from 0")


def parse(argv: list[str]) -> list[str]:
    """Parses flags; whatever is wrong with them or with the config file is one line and exit code 2."""
    try:
        _check_names(argv)
        rest = flags.FLAGS(argv)
        for name in ("config", "workdir"):
            if flags.FLAGS[name].value is None:
                raise ConfigError(f"--{name} is missing; see python -m amd_jax.main --help")
        if len(rest) > 1:
            raise ConfigError(f"{rest[1]!r}: not understood; flags look like --config.batch_size=64")
        config: Any = flags.FLAGS["config"].value
        _ = config.method  # a file that failed to load says so when it is first asked for something
        return rest
    except (flags.Error, ConfigError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(error)


def _check_names(argv: list[str]) -> None:
    """Overrides of keys that do not exist, before anything else; with what may have been meant."""
    for argument in argv[1:]:
        if name := re.match(r"--?config\.([^=]+)", argument):
            if name[1] in KEYS:
                continue
            close = difflib.get_close_matches(name[1], KEYS, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "python -m amd_jax.config lists them"
            raise ConfigError(f"--config.{name[1]}: no such key; {hint}")


def fail(error: BaseException) -> NoReturn:
    """One line, exit code 2."""
    message = str(error)
    if "Traceback" in message:  # config_flags puts the whole traceback of a config file into its message
        message = f"{flags.FLAGS['config'].name}: {message.strip().splitlines()[-1]}"
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(EXIT_USAGE)


def main(argv: list[str]) -> None:
    """Hand the config over to the loop, and turn how it ended into an exit code."""
    del argv
    if _DISTRIBUTED.value or "device_count" in os.environ.get("XLA_FLAGS", ""):
        # CPU devices that meet in a collective deadlock with fewer threads. One device alone would be a third
        # slower with so many.
        os.environ.setdefault("NPROC", "32")
    import jax

    from amd_jax import loop, setup

    logging.set_verbosity(logging.WARNING)
    try:
        _join(jax)
        run = setup.prepare(_CONFIG.value, str(_WORKDIR.value))
        if run.config.eval.only:
            loop.evaluate_only(run)
        else:
            loop.train(run)
    except ConfigError as error:
        _leave(jax, error)
        fail(error)
    except loop.NonFiniteError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(EXIT_NON_FINITE)
    except loop.StoppedBySignal as stop:
        print("stopped:", stop, file=sys.stderr)
        sys.exit(EXIT_STOPPED)


def _join(jax: Any) -> None:
    """Meet the other processes of the run, if there are any."""
    place = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if not _DISTRIBUTED.value:
        if any(value is not None for value in place):
            raise ConfigError("--coordinator, --processes and --process need --distributed")
        return
    try:
        jax.distributed.initialize(*place)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed: {error}; where nothing tells the processes of each other, give --coordinator, "
            "--processes and --process"
        ) from error


def _leave(jax: Any, error: BaseException) -> None:
    """One of several processes cannot wait for the others, which do not know: they notice that it is gone."""
    if _DISTRIBUTED.value and jax.distributed.is_initialized() and jax.process_count() > 1:
        print("error:", error, file=sys.stderr, flush=True)
        os._exit(EXIT_USAGE)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
