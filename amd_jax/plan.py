"""What a run needs on devices that are not here: `python -m amd_jax.plan --config=FILE --topology=v5e:16x16`.

The program is the one that a run compiles; for TPUs it is given to their own compiler, which needs no TPU
(requirements-plan.txt). GPUs and the CPU are planned without a compiler, from shapes and FLOPs. Exit codes
are those of exits.py; a program that does not fit is a finding, and no error.
"""

import dataclasses
import os
import time
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from amd_jax import command, exits, numbers_file
from amd_jax.config import KEYS
from amd_jax.errors import ConfigError
from amd_jax.planning.target import ENVIRONMENT, EXAMPLES, find_libtpu, target

_TOPOLOGY = flags.DEFINE_string("topology", None, f"the devices to plan for: {EXAMPLES}")
_EXAMPLES = flags.DEFINE_integer("examples", None, "training examples, where the data set is not known", 1)
_CLASSES = flags.DEFINE_integer("classes", None, "classes, where the data set is not known", 1)
_SWEEP = flags.DEFINE_bool("sweep", False, "also try other meshes, passes and remat, and say what is fastest")


def parse(argv: list[str]) -> list[str]:
    """Parses the flags of a plan."""
    return command.parse(argv, KEYS, "amd_jax.plan", required=("config", "topology"))


def main(argv: list[str]) -> int:
    """Plan, print, and turn mistakes into an exit code."""
    del argv
    os.environ.update(ENVIRONMENT)  # before jax is imported, which the modules below do
    from amd_jax.planning import printed, recipe, roofline, sweep

    logging.set_verbosity(logging.ERROR)
    try:
        where = target(str(_TOPOLOGY.value))
        numbers_file.check()
        if where.compiled:
            find_libtpu()
        elif _SWEEP.value:
            raise ConfigError(f"--sweep asks a compiler, which there is none of for {where.topology}")
        config = recipe.plannable(command.CONFIG.value)
        name = config_flags.get_config_filename(flags.FLAGS["config"])
        size = recipe.size(config, name, _EXAMPLES.value, _CLASSES.value)
        planner = sweep.Planner(where, *size, say=_clock())
        estimate = planner.plan(config)
        print(printed.page(name, estimate), flush=True)
        found = {"config": name, **roofline.figures(estimate)}
        if _SWEEP.value:
            rows = sweep.sweep(planner, config, estimate)
            print(sweep.page(rows), flush=True)
            found["sweep"] = [dataclasses.asdict(row) for row in rows]
        numbers_file.write(found)
    except Exception as error:
        return exits.told(error)
    return exits.DONE


def _clock() -> Callable[[str], None]:
    """Prints lines with the seconds since the start."""
    began = time.perf_counter()
    return lambda what: print(f"[{time.perf_counter() - began:4.0f} s] {what}", flush=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
