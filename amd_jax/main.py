"""Command line: `python -m amd_jax.main --config=configs/vitb_in1k.py --workdir=DIR [--config.KEY=VALUE]`.

Exit codes are those of exits.py.
"""

import os
from typing import Any

from absl import app, flags, logging

from amd_jax import command, exits
from amd_jax.config import KEYS
from amd_jax.errors import ConfigError

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "this is one of several processes; a TPU pod, SLURM, Kubernetes or MPI says which"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "elsewhere: HOST:PORT of process 0, for --distributed"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "elsewhere: how many processes there are")
_PROCESS = flags.DEFINE_integer("process", None, "elsewhere: the number of this one, from 0")


def parse(argv: list[str]) -> list[str]:
    """Parses the flags of a run."""
    return command.parse(argv, KEYS, "amd_jax.main")


def main(argv: list[str]) -> int:
    """Hand the config over to the loop, and turn how it ended into an exit code."""
    del argv
    if _DISTRIBUTED.value or "device_count" in os.environ.get("XLA_FLAGS", ""):
        # CPU devices that meet in a collective deadlock with fewer threads. One device alone would be a third
        # slower with so many.
        os.environ.setdefault("NPROC", "32")
    import jax

    from amd_jax import compilation_cache
    from amd_jax.train import loop, setup

    logging.set_verbosity(logging.WARNING)
    compilation_cache.enable()
    try:
        _join(jax)
        run = setup.prepare(command.CONFIG.value, str(command.WORKDIR.value))
        if run.config.eval.only:
            loop.evaluate_only(run)
        else:
            loop.train(run)
    except Exception as error:
        if (end := exits.ending(error)) is None:
            raise
        if end[0] == exits.USAGE or getattr(error, "alone", False):
            _abandon(jax, *end)
        return exits.say(*end)
    return exits.DONE


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


def _abandon(jax: Any, code: int, message: str) -> None:
    """One of several processes cannot wait for the others, which do not know: they notice that it is gone."""
    if _DISTRIBUTED.value and jax.distributed.is_initialized() and jax.process_count() > 1:
        os._exit(exits.say(code, message))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
