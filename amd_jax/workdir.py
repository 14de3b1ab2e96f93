"""A run's folder, and who reads a finished run from it: its config, its classes, its parameters.

Layout: `WORKDIR/config.json` (the resolved config) and `WORKDIR/checkpoints/STEP/{params,optimizer,data}`.
`WORKDIR/classes.json` lies there where a classifier is trained: the names of its classes by label.
`ema` lies beside the parameters where a running mean of them is kept.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from amd_jax import checksums
from amd_jax.buckets import absolute, is_url, place
from amd_jax.config import KEYS, default, flat
from amd_jax.errors import RunError

FOLDER = "checkpoints"
CONFIG = "config.json"
CLASSES = "classes.json"
METRICS = "metrics.jsonl"
COMMITTED = "commit_success.txt"  # orbax's last file of a step; in a bucket it alone tells a whole one


def save_config(workdir: str, config: ConfigDict) -> None:
    """Writes the resolved config next to the run."""
    write_json(place(workdir) / CONFIG, config.to_dict())


def save_classes(workdir: str, names: tuple[str, ...]) -> None:
    """Writes the names of the classes, which a classifier's weights do not hold."""
    write_json(place(workdir) / CLASSES, list(names))


def load_classes(workdir: str) -> tuple[str, ...]:
    """The names of a run's classes by label; empty where it has recorded none.

    Raises:
      RunError: the record is damaged.
    """
    path = place(workdir) / CLASSES
    try:
        names = json.loads(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RunError(f"{path}: not a list of names")
    return tuple(names)


def load_metrics(workdir: str) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first; a step has one for each thing that was logged there."""
    with (place(workdir) / METRICS).open() as lines:
        return [json.loads(line) for line in lines]


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    if is_url(path):  # a bucket takes a file as one
        path.write_text(text)
        return
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_config(workdir: str) -> dict[str, Any]:
    """The resolved config of a run, as plain data."""
    path = place(workdir) / CONFIG
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot read the config of a run there ({error})") from error


def run_config(workdir: str) -> ConfigDict:
    """The config of a run; keys that were not known when it was written have their defaults."""
    config = default()
    saved = flat(load_config(workdir))
    config.update_from_flattened_dict({name: value for name, value in saved.items() if name in KEYS})
    return config


def is_run(path: str) -> bool:
    """Whether `path` is a workdir of ours."""
    folder = place(path)
    return (folder / CONFIG).is_file() and (folder / FOLDER).is_dir()


def load_params(workdir: str, step: int | None = None) -> tuple[Any, int]:
    """What a run is scored by, as host arrays: its parameters or, where it is kept, their mean; and the step.

    Args:
      workdir: of the run.
      step: of the checkpoint; None: the newest.

    Raises:
      RunError: there is no such checkpoint, or it is damaged; it is somebody else's, so it stays there.
    """
    folder = absolute(place(workdir)) / FOLDER
    steps = saved_steps(folder)
    if not steps or (step is not None and step not in steps):
        wanted = "" if step is None else f" of step {step}"
        raise RunError(f"{workdir}: no checkpoint{wanted} there; the run has {steps or 'none'}")
    step = steps[-1] if step is None else step
    part = "ema" if keeps_mean(workdir, step) else "params"
    if what := checksums.damage(folder / str(step), part):
        raise RunError(f"{folder / str(step)} is damaged ({what}); {_others(folder, step)}")
    # As host arrays, whatever mesh saved them: a teacher trained on a pod is loaded on a laptop.
    try:
        with _quiet_orbax(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            path = folder / str(step) / part
            tree = checkpointer.metadata(path).item_metadata.tree
            host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            params = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=host))
    except Exception as error:  # without checksums, damage shows here, as many kinds of errors
        if checksums.exist(folder / str(step)):
            raise
        why = f"cannot be read ({first_line(error)})"
        raise RunError(f"{folder / str(step)} {why}; {_others(folder, step)}") from error
    return params, step


def keeps_mean(workdir: str, step: int) -> bool:
    """Whether the checkpoint holds a running mean of the parameters."""
    return (place(workdir) / FOLDER / str(step) / "ema").is_dir()


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """One item of a step has no metadata file of its own, which orbax warns about each time."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def saved_steps(folder: Path) -> list[int]:
    """The steps that were saved whole, ascending; others have names that are no numbers."""
    return sorted(int(p.name) for p in _numbered(folder) if not is_url(p) or (p / COMMITTED).exists())


def half_written(folder: Path) -> list[Path]:
    """What saves that did not come to an end left; while one is under way, that too."""
    if is_url(folder):
        return [p for p in _numbered(folder) if not (p / COMMITTED).exists()]
    return list(folder.glob("*.orbax-checkpoint-tmp*"))


def _numbered(folder: Path) -> list[Path]:
    return [p for p in folder.glob("[0-9]*") if p.name.isdigit()] if folder.is_dir() else []


def _others(folder: Path, damaged: int) -> str:
    """What somebody who wanted the parameters of a damaged step can take instead."""
    for step in reversed(saved_steps(folder)):
        part = "ema" if (folder / str(step) / "ema").is_dir() else "params"
        if step != damaged and not checksums.damage(folder / str(step), part):
            return f"step {step} is whole: move the damaged one away, or name {folder / str(step)}"
    return "no other step of the run is whole"


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
