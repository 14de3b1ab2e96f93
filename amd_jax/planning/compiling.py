"""Programs compiled for devices that are not here. What comes of it is kept, for compiling takes minutes."""

import dataclasses
import gzip
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amd_jax.compilation_cache import folder
from amd_jax.planning.target import quiet

_FORMAT = 1  # of the kept files
# `memory_analysis()` in bytes a chip; "peak" is the compiler's own.
_MEMORY = {
    "arguments": "argument_size_in_bytes",
    "outputs": "output_size_in_bytes",
    "aliased": "alias_size_in_bytes",
    "temporaries": "temp_size_in_bytes",
    "code": "generated_code_size_in_bytes",
    "peak": "peak_memory_in_bytes",
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compiler made of a program.

    Attributes:
      text: the optimised HLO; empty where the program does not fit.
      memory: bytes a chip, by the names of _MEMORY; empty where it does not fit.
      too_large: what the compiler said, where the program does not fit.
      kept: whether it was compiled by an earlier call.
    """

    text: str
    memory: dict[str, int]
    too_large: str = ""
    kept: bool = False

    @property
    def total(self) -> int:
        """Bytes that a chip needs for a step; what is passed on counts once."""
        m = self.memory
        return m["arguments"] + m["outputs"] - m["aliased"] + m["temporaries"] + m["code"]


def compiled(lowered: Any, name: str, devices: list[Any], say: Callable[[str], None]) -> Compiled:
    """The program for its devices, from an earlier call or from the compiler.

    Args:
      lowered: the program.
      name: what else decides what the compiler makes of it: its version, the topology.
      devices: of the mesh, in its order, which the program's text does not say.
      say: takes a line of progress.
    """
    order = ",".join(str(device.id) for device in devices)
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    parts = (str(_FORMAT), name, order, flags, lowered.as_text())
    path = folder("plan") / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}.json.gz"
    if (found := _read(path)) is not None:
        say(f"compiled before: {path}")
        return found
    say("compiling, which takes minutes for large models")
    found = _compile(lowered)
    _write(path, found)
    return found


def _compile(lowered: Any) -> Compiled:
    import jax

    try:
        with quiet():
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled("", {}, too_large(str(error)))
    return Compiled(program.as_text(), memory(program))


def memory(program: Any) -> dict[str, int]:
    """Bytes a chip of a compiled program, by the names of _MEMORY; zeros where the compiler does not say."""
    analysis = program.memory_analysis()
    return {name: int(getattr(analysis, field, 0)) for name, field in _MEMORY.items()}


def too_large(error: str) -> str:
    """The first sentence of what the compiler says of a program that does not fit."""
    line = error.strip().splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    return re.split(r"(?<=[a-z)])\. ", line)[0].rstrip(".")[:300]


def _read(path: Path) -> Compiled | None:
    """What an earlier call kept; a file that cannot be read is as good as none."""
    try:
        return Compiled(**json.loads(gzip.decompress(path.read_bytes())), kept=True)
    except (OSError, EOFError, ValueError, TypeError):
        return None


def _write(path: Path, found: Compiled) -> None:
    """Keeps it for the next call, whole or not at all; a folder that cannot be written keeps nothing."""
    kept = {"text": found.text, "memory": found.memory, "too_large": found.too_large}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(gzip.compress(json.dumps(kept).encode()))
        os.replace(file.name, path)
    except OSError:
        return
