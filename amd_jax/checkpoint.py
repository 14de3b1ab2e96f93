"""Checkpoints through orbax: parameters, optimiser state and data position in one step directory.

Layout: `WORKDIR/config.json` (the resolved config) and `WORKDIR/checkpoints/STEP/{params,optimizer,data}`.
`WORKDIR/classes.json` lies there where a classifier is trained: the names of its classes by label.
`ema` lies beside these where a running mean of the parameters is kept.
A step directory appears under its name only when it is whole, so a killed run leaves the one before it.
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

from amd_jax.config import KEYS, ConfigError, default, flat
from amd_jax.train_state import TrainState

FOLDER = "checkpoints"
CONFIG = "config.json"
CLASSES = "classes.json"


class Checkpoints:
    """The checkpoints of one run; saving returns at once and goes on in the background."""

    def __init__(self, workdir: str, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix=None)
        self._manager = ocp.CheckpointManager(Path(workdir).absolute() / FOLDER, options=options)

    def latest(self) -> int | None:
        """The newest whole step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, step: int, position: dict[str, Any]) -> None:
        """Start saving; `position` is the data position (plain JSON)."""
        items = {name: ocp.args.StandardSave(part) for name, part in _items(state).items()}
        items["data"] = ocp.args.JsonSave(position)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """The state and data position of `step`, placed as the shardings in `abstract` say.

        The mesh may differ from the one that saved.

        Raises:
          ConfigError: the checkpoint holds other parameters than this config builds.
        """
        items = {name: ocp.args.StandardRestore(part) for name, part in _items(abstract).items()}
        items["data"] = ocp.args.JsonRestore()
        try:
            out = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._manager.directory}/{step} does not fit this config ({_first_line(error)}); "
                "continue with the config that wrote it, or start in another workdir"
            ) from error
        o = out.optimizer
        return TrainState(o["step"], out.params, o["state"], out["ema"] if abstract.ema else {}), out.data

    def wait(self) -> None:
        """Returns once everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and frees the background threads."""
        self._manager.close()


def save_config(workdir: str, config: ConfigDict) -> None:
    """Writes the resolved config next to the run."""
    write_json(Path(workdir) / CONFIG, config.to_dict())


def save_classes(workdir: str, names: tuple[str, ...]) -> None:
    """Writes the names of the classes, which a classifier's weights do not hold."""
    write_json(Path(workdir) / CLASSES, list(names))


def load_classes(workdir: str) -> tuple[str, ...]:
    """The names of a run's classes by label; empty where it has recorded none.

    Raises:
      ConfigError: the record is damaged.
    """
    path = Path(workdir) / CLASSES
    try:
        names = json.loads(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: not a list of names")
    return tuple(names)


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w") as file:
        file.write(json.dumps(content, indent=2, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_config(workdir: str) -> dict[str, Any]:
    """The resolved config of a run, as plain data."""
    path = Path(workdir) / CONFIG
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the config of a run there ({error})") from error


def run_config(workdir: str) -> ConfigDict:
    """The config of a run; keys that were not known when it was written have their defaults."""
    config = default()
    saved = flat(load_config(workdir))
    config.update_from_flattened_dict({name: value for name, value in saved.items() if name in KEYS})
    return config


def is_run(path: str) -> bool:
    """Whether `path` is a workdir of ours."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / FOLDER).is_dir()


def load_params(workdir: str, step: int | None = None) -> tuple[Any, int]:
    """What a run is scored by, as host arrays: its parameters or, where it is kept, their mean; and the step.

    Args:
      workdir: of the run.
      step: of the checkpoint; None: the newest.

    Raises:
      ConfigError: there is no such checkpoint.
    """
    folder = Path(workdir).absolute() / FOLDER
    steps = sorted(int(p.name) for p in folder.glob("[0-9]*") if p.name.isdigit()) if folder.is_dir() else []
    if not steps or (step is not None and step not in steps):
        wanted = "" if step is None else f" of step {step}"
        raise ConfigError(f"{workdir}: no checkpoint{wanted} there; the run has {steps or 'none'}")
    step = steps[-1] if step is None else step
    # As host arrays, whatever mesh saved them: a teacher trained on a pod is loaded on a laptop.
    with _quiet_orbax(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        path = folder / str(step) / ("ema" if keeps_mean(workdir, step) else "params")
        tree = checkpointer.metadata(path).item_metadata.tree
        host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        params = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=host))
    return params, step


def keeps_mean(workdir: str, step: int) -> bool:
    """Whether the checkpoint holds a running mean of the parameters."""
    return (Path(workdir) / FOLDER / str(step) / "ema").is_dir()


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """One item of a step has no metadata file of its own, which orbax warns about each time."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _items(state: TrainState) -> dict[str, Any]:
    """What lies in a directory of its own."""
    items = {"params": state.params, "optimizer": {"step": state.step, "state": state.opt_state}}
    return items | {"ema": state.ema} if state.ema else items


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
