"""Runs one cell and keeps its scores in `result.json`, which is what a restart goes by."""

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from amd_jax import probe
from amd_jax.compare.grid import Cell
from amd_jax.errors import ConfigError
from amd_jax.train import loop, setup
from amd_jax.workdir import load_metrics, load_params, write_json

CELL, RESULT = "cell.json", "result.json"
Result = dict[str, Any]


def run(cell: Cell, workdir: Path, stop: Callable[[], None]) -> Result:
    """Trains, scores and writes the result; goes on from the run's newest checkpoint.

    Args:
      cell: what to run.
      workdir: of the comparison.
      stop: called after every step; may raise a signal to end the run.

    Raises:
      UserError, NonFiniteError, StoppedBySignal: as the run itself.
    """
    folder = workdir / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    _check(cell, folder)
    write_json(folder / CELL, cell.identity)
    with open(folder / "log.txt", "a") as log, contextlib.redirect_stdout(log):
        result: Result = {"setting": _setting(), "tflop": 0.0, "seconds": 0.0}
        if cell.trained:
            result |= _train(cell, folder, stop)
        if not cell.fine_tuned:
            params = load_params(str(folder))[0] if cell.trained else probe.initial_params(cell.config)
            result |= probe.probe_params(cell.config, params["encoder"])
    write_json(folder / RESULT, result)
    return result


def load(cell: Cell, workdir: Path) -> Result | None:
    """The result of a finished cell.

    Raises:
      ConfigError: what is there was begun by another plan.
    """
    folder = workdir / cell.name
    _check(cell, folder)
    return _read(folder / RESULT)


def _check(cell: Cell, folder: Path) -> None:
    """What was begun in the folder, if anything, was this very cell."""
    then, now = _read(folder / CELL), cell.identity
    if then is None:
        return
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            raise ConfigError(
                f"{folder}: was begun with {name}={then.get(name)!r}, the plan now has {now.get(name)!r}; "
                "take another workdir, or delete that folder and those inside it"
            )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); delete the folder it is in") from error


def _setting() -> str:
    """With what and where a cell is computed."""
    parts = [f"jax {jax.__version__}", jax.devices()[0].device_kind, platform.machine()]
    if hasattr(os, "sched_getaffinity"):
        parts.append(f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores")
    with contextlib.suppress(OSError):  # no git: no commit
        root = str(Path(__file__).parent)
        describe = ["git", "-C", root, "describe", "--always", "--dirty"]
        git = subprocess.run(describe, capture_output=True, text=True, check=False)
        parts += [f"commit {git.stdout.strip()}"] if git.returncode == 0 else []
    return ", ".join(parts)


def _train(cell: Cell, folder: Path, stop: Callable[[], None]) -> Result:
    """The run; what it cost, and for fine-tuning its accuracy at the end."""
    prepared = setup.prepare(cell.config, str(folder))
    loop.train(prepared, hooks=(loop.Hook(lambda step, state: stop()),))
    lines = load_metrics(str(folder))
    pace = np.median([line["seconds_per_step"] for line in lines if "seconds_per_step" in line])
    scores = [line for line in lines if "eval_top1" in line]
    return {
        "steps": prepared.program.total_steps,
        "tflop": prepared.program.flops_per_step * prepared.program.total_steps / 1e12,
        "seconds": float(pace) * prepared.program.total_steps,
    } | ({"eval_top1": scores[-1]["eval_top1"]} if scores else {})
