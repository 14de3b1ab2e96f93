"""Command line: `python -m amd_jax.main --config=configs/vitb_in1k.py --workdir=DIR [--config.KEY=VALUE]`.

Exit codes are those of exits.py.
"""

import os

from absl import app, flags, logging

from amd_jax import command
from amd_jax.config import KEYS, flat
from amd_jax.errors import ConfigError

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "this is one of several processes; a TPU pod, SLURM, Kubernetes or MPI says which"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "elsewhere: HOST:PORT of process 0, for --distributed"
)
_PROCESSES = flags.DEFINE_integer("processes", None, "elsewhere: how many processes there are")
_PROCESS = flags.DEFINE_integer("process", None, "elsewhere: the number of this one, from 0")
_START_MINUTES = flags.DEFINE_float(
    "start_minutes", 10.0, "with --distributed: how long to wait for the last process", lower_bound=0.0
)
_LOST_SECONDS = flags.DEFINE_float(
    "lost_seconds", 100.0, "with --distributed: a process not heard of for so long is gone", lower_bound=1.0
)


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
    from amd_jax.hosts import ending

    logging.set_verbosity(logging.WARNING)
    try:
        _join()
        _run()
    except (Exception, KeyboardInterrupt) as error:
        return ending.ended(error)
    return ending.ended(None)


def _run() -> None:
    from amd_jax import compilation_cache
    from amd_jax.train import loop, setup

    compilation_cache.enable()
    run = setup.prepare(command.CONFIG.value, str(command.WORKDIR.value))
    if run.config.eval.only:
        loop.evaluate_only(run)
    else:
        loop.train(run)


def _join() -> None:
    """Meet the other processes of the run, if there are any; before anything large is imported."""
    place = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if not _DISTRIBUTED.value:
        if any(value is not None for value in place):
            raise ConfigError("--coordinator, --processes and --process need --distributed")
        return
    from amd_jax.hosts import alike, join

    facts = alike.of_program(command.config_file()) | alike.of_config(flat(command.CONFIG.value))
    join.join(*place, facts, _START_MINUTES.value, _LOST_SECONDS.value)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
