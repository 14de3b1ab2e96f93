"""Where config files are found: in the folder where a command is started, or among the package's own."""

import importlib
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
# Installed they lie in the package; in a checkout of the repository, beside it.
SHIPPED = folder if (folder := _PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"

_FLAGS = ("--config", "-config", "--against", "-against")


def locate(argv: Sequence[str]) -> list[str]:
    """The command line with a `--config=configs/FILE.py` that is not here replaced by this package's file.

    So is `--against=`, a second config. And `from configs import common` finds the package's from now on, in
    whatever file is loaded.
    """
    out = list(argv)
    for i, argument in enumerate(out):
        flag, equals, value = argument.partition("=")
        if flag in _FLAGS and equals:
            out[i] = f"{flag}={_located(value)}"
        elif flag in _FLAGS and i + 1 < len(out):
            out[i + 1] = _located(out[i + 1])
    _make_importable(first=out != list(argv))
    return out


def with_against(argv: Sequence[str]) -> list[str]:
    """The command line of two configs.

    Without `--against=FILE`, `--against.KEY=VALUE` changes a copy of all that `--config` says.
    """
    flags = [argument.lstrip("-").partition("=")[0] if argument[:1] == "-" else "" for argument in argv]
    if "against" in flags or not any(flag.startswith("against.") for flag in flags):
        return list(argv)
    copied = []
    for i, (flag, argument) in enumerate(zip(flags, argv, strict=True)):
        if flag == "config" or flag.startswith("config."):
            copied.append(argument.replace("config", "against", 1))
            if argument == f"--{flag}" or argument == f"-{flag}":  # its value is the next word
                copied += argv[i + 1 : i + 2]
    return [argv[0], *copied, *argv[1:]]


def _located(config: str) -> str:
    """FILE.py or FILE.py:ARGUMENT, with the path of the package's file if there is no other."""
    path, colon, argument = config.partition(":")
    folder, name = os.path.split(path)
    if folder == "configs" and not os.path.exists(path) and (SHIPPED / name).is_file():
        path = str(SHIPPED / name)
    return path + colon + argument


def _make_importable(first: bool) -> None:
    """Adds the package's config files to the module `configs`, before or after those of a folder here."""
    try:
        configs = importlib.import_module("configs")
    except ModuleNotFoundError as error:
        if error.name != "configs":
            raise
        configs = sys.modules["configs"] = types.ModuleType("configs")
    found = list(getattr(configs, "__path__", []))
    configs.__path__ = [str(SHIPPED), *found] if first else [*found, str(SHIPPED)]


def load(name: str, argument: str = "") -> Any:
    """The config of this package's `configs/NAME.py:ARGUMENT`."""
    _make_importable(first=True)
    return importlib.import_module(f"configs.{name}").get_config(argument)
