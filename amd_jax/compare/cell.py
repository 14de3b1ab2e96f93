"""Runs one cell and keeps its scores in `result.json`, which is what a restart goes by."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from amd_jax import loop, metrics, probe, setup
from amd_jax.checkpoint import load_params
from amd_jax.compare.plan import Cell
from amd_jax.config import ConfigError, flat

RESULT = "result.json"
Result = dict[str, Any]

# Where things lie may change between two starts of a comparison; what is computed may not.
PLACES = ("data.path", "student.weights", "teacher.weights")


def run(cell: Cell, workdir: Path, stop: Callable[[], None]) -> Result:
    """Trains, scores and writes the result; goes on from the run's newest checkpoint.

    Args:
      cell: what to run.
      workdir: of the comparison.
      stop: called after every step; may raise a signal to end the run.

    Raises:
      ConfigError, NonFiniteError, StoppedBySignal: as the run itself.
    """
    folder = workdir / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a") as log, contextlib.redirect_stdout(log):
        result: Result = {"device": jax.devices()[0].device_kind, "tflop": 0.0, "seconds": 0.0}
        if cell.trained:
            result |= _train(cell, folder, stop)
        if not cell.fine_tuned:
            params = load_params(str(folder))[0] if cell.trained else probe.initial_params(cell.config)
            result |= probe.probe_params(cell.config, params["encoder"])
    result["config"] = _what_counts(cell)
    temporary = folder / (RESULT + ".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, folder / RESULT)
    return result


def load(cell: Cell, workdir: Path) -> Result | None:
    """The result of a finished cell.

    Raises:
      ConfigError: it was run with another config than the plan now has.
    """
    path = workdir / cell.name / RESULT
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    now, then = _what_counts(cell), result["config"]
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            raise ConfigError(
                f"{path}: was made with {name}={then.get(name)!r}, the plan now has {now.get(name)!r}; "
                "take another workdir, or delete that folder and those inside it"
            )
    return result


def _train(cell: Cell, folder: Path, stop: Callable[[], None]) -> Result:
    """The run; what it cost, and for fine-tuning its accuracy at the end."""
    prepared = setup.prepare(cell.config, str(folder))
    loop.train(prepared, hooks=(lambda step, state: stop(),))
    lines = metrics.read(str(folder))
    pace = np.median([line["seconds_per_step"] for line in lines if "seconds_per_step" in line])
    scores = [line for line in lines if "eval_top1" in line]
    return {
        "steps": prepared.total_steps,
        "tflop": prepared.flops_per_step * prepared.total_steps / 1e12,
        "seconds": float(pace) * prepared.total_steps,
    } | ({"eval_top1": scores[-1]["eval_top1"]} if scores else {})


def _what_counts(cell: Cell) -> Mapping[str, Any]:
    """The config as JSON gives it back, without the places."""
    kept = {name: value for name, value in flat(cell.config).items() if name not in PLACES}
    return json.loads(json.dumps(kept))
