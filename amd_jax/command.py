"""The command line that runs and comparisons share: `--config`, `--workdir`, one-line errors, exit codes.

Exit codes: 0 done; 2 something in the command, config, data or weights has to change; 3 the loss is not
finite; 75 stopped by a signal with everything saved, so the same command goes on.
"""

import difflib
import re
import sys
from collections.abc import Collection
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from amd_jax import config_files
from amd_jax.config import ConfigError

EXIT_USAGE, EXIT_NON_FINITE, EXIT_STOPPED = 2, 3, 75

CONFIG = config_flags.DEFINE_config_file("config", None, "a file of configs/, FILE.py or FILE.py:ARGUMENT")
WORKDIR = flags.DEFINE_string("workdir", None, "where everything that is written goes")


def parse(argv: list[str], keys: Collection[str], module: str) -> list[str]:
    """Parses flags; whatever is wrong with them or with the config file is one line and exit code 2.

    Args:
      argv: the command line.
      keys: every K that `--config.K=VALUE` may name.
      module: what the user started, for messages.
    """
    try:
        argv = config_files.locate(argv)
        _check_names(argv, keys)
        rest = flags.FLAGS(argv)
        for name in ("config", "workdir"):
            if flags.FLAGS[name].value is None:
                raise ConfigError(f"--{name} is missing; see python -m {module} --help")
        if len(rest) > 1:
            raise ConfigError(f"{rest[1]!r}: not understood; flags look like --config.batch_size=64")
        config: Any = flags.FLAGS["config"].value
        _ = config.keys()  # a file that failed to load says so when it is first asked for something
        return rest
    except (flags.Error, ConfigError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(error)


def _check_names(argv: list[str], keys: Collection[str]) -> None:
    """Overrides of keys that do not exist, before anything else; with what may have been meant."""
    for argument in argv[1:]:
        if name := re.match(r"--?config\.([^=]+)", argument):
            if name[1] in keys:
                continue
            close = difflib.get_close_matches(name[1], keys, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "python -m amd_jax.config lists them"
            raise ConfigError(f"--config.{name[1]}: no such key; {hint}")


def fail(error: BaseException) -> NoReturn:
    """One line, exit code 2."""
    message = str(error)
    if "Traceback" in message:  # config_flags puts the whole traceback of a config file into its message
        message = f"{flags.FLAGS['config'].name}: {message.strip().splitlines()[-1]}"
    leave(" ".join(message.split()), EXIT_USAGE)


def leave(message: object, code: int) -> NoReturn:
    """One line on stderr, and the exit code that goes with it."""
    print("stopped:" if code == EXIT_STOPPED else "error:", message, file=sys.stderr)
    sys.exit(code)
