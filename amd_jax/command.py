"""The command line that runs and comparisons share: `--config` and `--workdir`, mistakes in one line."""

import sys
from collections.abc import Collection
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from amd_jax import config_files, exits
from amd_jax.config import check_names
from amd_jax.errors import ConfigError

CONFIG = config_flags.DEFINE_config_file("config", None, "a file of configs/, FILE.py or FILE.py:ARGUMENT")
WORKDIR = flags.DEFINE_string("workdir", None, "where everything that is written goes")


def parse(
    argv: list[str], keys: Collection[str], module: str, required: Collection[str] = ("config", "workdir")
) -> list[str]:
    """Parses flags; whatever is wrong with them or with the config file is one line and exit code 2.

    Args:
      argv: the command line.
      keys: every K that `--config.K=VALUE` may name.
      module: what the user started, for messages.
      required: flags that have to be given.
    """
    try:
        argv = config_files.locate(argv)
        check_names(argv[1:], keys)  # before anything else
        rest = flags.FLAGS(argv)
        for name in required:
            if flags.FLAGS[name].value is None:
                raise ConfigError(f"--{name} is missing; see python -m {module} --help")
        if len(rest) > 1:
            raise ConfigError(f"{rest[1]!r}: not understood; flags look like --config.batch_size=64")
        config: Any = flags.FLAGS["config"].value
        _ = config.keys()  # a file that failed to load says so when it is first asked for something
        return rest
    except (flags.Error, ConfigError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(error)


def config_file() -> str:
    """The file that made the config, without the argument behind its name."""
    return config_flags.get_config_filename(flags.FLAGS["config"]).split(":")[0]


def fail(error: BaseException) -> NoReturn:
    """One line, and the exit code for what the user has to change."""
    message = str(error)
    if "Traceback" in message:  # config_flags puts the whole traceback of a config file into its message
        message = f"{flags.FLAGS['config'].name}: {message.strip().splitlines()[-1]}"
    sys.exit(exits.say(exits.USAGE, message))
