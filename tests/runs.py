"""Small runs for the tests of loop, checkpoint, main and probe."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from amd_jax import sharding
from amd_jax.data.sources import make_source
from amd_jax.steps.tasks import make_task
from amd_jax.steps.train_state import TrainState
from amd_jax.train import program
from amd_jax.train.checkpoint import Checkpoints
from amd_jax.train.validate import validate
from amd_jax.trees import path_name
from amd_jax.workdir import load_metrics, save_config
from configs import vitb_in1k
from tests import QUICK

ROOT = Path(__file__).parents[1]


def tiny(**changes: Any) -> ConfigDict:
    """The smoke config on one device per mesh axis, logging every step; `changes` are dotted keys."""
    config = vitb_in1k.get_config("smoke")
    config.batch_size, config.steps = 8, 20
    config.log.every, config.log.pictures_every, config.checkpoint.every = 1, 0, 10
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def step_shapes(config: ConfigDict) -> None:
    """A config is valid and its whole step has shapes, without data, weights or a compilation."""
    config.teacher.random = True  # weights are the user's
    validate(config)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    run = program.build(config, mesh, examples=1_281_167, classes=1000)
    new_state, metrics = jax.eval_shape(run.step, run.state, run.teacher, run.batch)
    assert jax.tree.map(lambda x: x.shape, new_state) == jax.tree.map(lambda x: x.shape, run.state)
    assert {"loss", "lr", "grad_norm"} <= metrics.keys()


def untrained(config: ConfigDict, workdir: Path, seed: int = 0, scale: float = 0.1) -> Any:
    """Makes the workdir of a run that trained nothing; returns its weights, which are away from zero."""
    task = make_task(config, make_source(config.data, "train").num_classes)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    params = jax.tree.map(lambda s: rng.normal(0, scale, s.shape).astype(np.float32), shapes)
    checkpoints = Checkpoints(str(workdir), 1)
    checkpoints.save(TrainState.create(params, optax.identity()), 1, {"step": 1})
    checkpoints.close()
    save_config(str(workdir), config)
    return params


def metrics(workdir: Path | str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return load_metrics(str(workdir))


def losses(workdir: Path | str) -> dict[int, tuple[float, ...]]:
    """Everything a step computed, by step."""
    lines = (line for line in metrics(workdir) if "loss" in line)  # others are scores
    computed = ("loss", "grad_norm", "lr")
    return {
        line["step"]: tuple(value for name, value in sorted(line.items()) if name.startswith(computed))
        for line in lines
    }


def assert_same(a: Any, b: Any) -> None:
    """Two trees hold the same bits."""
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def assert_close(a: Any, b: Any) -> None:
    """Equal to 1e-5 of each array's largest value, where that is more than rounding errors."""

    def check(path: Any, x: Any, y: Any) -> None:
        # A bias of the keys adds the same to all scores of a query, which softmax drops: no gradient.
        floor = 1e-6 if path_name(path).endswith("k_bias") else 1e-5 * abs(np.asarray(y)).max()
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=floor, err_msg=path_name(path))

    jax.tree_util.tree_map_with_path(check, a, b)


def start(*arguments: str, config: str = "configs/vitb_in1k.py:smoke") -> subprocess.Popen[str]:
    """`python -m amd_jax.main` on one CPU device, as a user starts it."""
    environment = {**os.environ, "XLA_FLAGS": QUICK, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "amd_jax.main", f"--config={config}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
