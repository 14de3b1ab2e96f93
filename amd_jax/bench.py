"""How fast a config runs on the devices that are here: `python -m amd_jax.bench --config=FILE [--input]`.

Times the first step and many more, over one random batch and with a random teacher, and prints the numbers
beside what these devices can do. `--against=FILE`, or `--against.KEY=VALUE` for the same config with other
keys, is a second program that takes turns with the first one. Exit codes are those of exits.py.

It needs jax, flax, optax and ml-collections alone; only `--input` needs what training needs.
"""

import sys
from typing import Any

from amd_jax import exits

try:
    from absl import app, flags, logging
    from ml_collections import config_flags

    from amd_jax import command, config_files, numbers_file
    from amd_jax.config import KEYS
    from amd_jax.errors import ConfigError
except ModuleNotFoundError as error:
    sys.exit(
        exits.say(exits.USAGE, f"{error.name} is not installed; pip install jax flax optax ml-collections")
    )

_AGAINST = config_flags.DEFINE_config_file(
    "against", None, "a second config, that takes turns with the first"
)
_STEPS = flags.DEFINE_integer(
    "steps", 0, "steps to time, of each program; 0: ten seconds, at least 10 steps", 0
)
_WARMUP = flags.DEFINE_integer("warmup", 3, "steps before that", 0)
_COLD = flags.DEFINE_bool("cold", True, "time a first step with nothing compiled before, then one with it")
_INPUT = flags.DEFINE_bool("input", False, "also read the config's data, alone and with steps over them")


def parse(argv: list[str]) -> list[str]:
    """Parses the flags of a bench."""
    argv[:] = config_files.with_against(argv)  # where config_flags looks for `--against.KEY`
    rest = command.parse(argv, KEYS, "amd_jax.bench", required=("config",))
    try:
        if _AGAINST.value is not None:
            _ = (
                _AGAINST.value.keys()
            )  # a file that failed to load says so when it is first asked for something
    except Exception as error:
        command.fail(error)
    return rest


def main(argv: list[str]) -> int:
    """Measure, print, and turn mistakes into an exit code."""
    del argv
    logging.set_verbosity(logging.ERROR)
    try:
        numbers_file.check()
        from amd_jax.measuring import measure

        wanted = [(_name("config"), command.CONFIG.value)]
        if _AGAINST.value is not None:
            wanted.append((_name("against"), _AGAINST.value))
        options = measure.Options(_STEPS.value, _WARMUP.value, _COLD.value, _INPUT.value)
        found = measure.measure(wanted, options)
        print(found.page(), end="", flush=True)
        numbers_file.write(found.figures())
    except ModuleNotFoundError as error:
        return exits.say(exits.USAGE, ConfigError(_missing(error)))
    except Exception as error:
        return exits.told(error)
    return exits.DONE


def _name(flag: str) -> str:
    """A config's file, and the keys that were changed."""
    holder: Any = flags.FLAGS[flag]
    changed = config_flags.get_override_values(holder)
    return " ".join([config_flags.get_config_filename(holder), *(f"{k}={v}" for k, v in changed.items())])


def _missing(error: ModuleNotFoundError) -> str:
    if _INPUT.value:
        return f"--input needs {error.name}, as training does: pip install -r requirements.txt"
    return f"{error.name} is not installed; pip install jax flax optax ml-collections"


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
