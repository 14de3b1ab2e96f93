"""`--json=FILE`: the numbers that a command prints, also as a file."""

import json
import os
from pathlib import Path
from typing import Any

from absl import flags

from amd_jax.errors import ConfigError

JSON = flags.DEFINE_string("json", None, "also write the numbers into this file")


def check() -> None:
    """Raises ConfigError for a file that cannot be written, before minutes are spent."""
    file = JSON.value
    if file and not (os.access(Path(file).parent, os.W_OK) and not Path(file).is_dir()):
        raise ConfigError(f"--json={file}: not a file that can be written")


def write(found: dict[str, Any]) -> None:
    """Writes the file, if one is wanted; raises ConfigError."""
    file = JSON.value
    if not file:
        return
    try:
        Path(file).write_text(json.dumps(found, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"--json={file}: cannot be written to ({error.strerror})") from error
