"""Small runs for the tests of loop, checkpoint, main and probe."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax.train_state import path_name
from configs import vitb_in1k

ROOT = Path(__file__).parents[1]


def tiny(**changes: Any) -> ConfigDict:
    """The smoke config on one device per mesh axis, logging every step; `changes` are dotted keys."""
    config = vitb_in1k.get_config("smoke")
    config.batch_size, config.steps = 8, 20
    config.log.every, config.log.pictures_every, config.checkpoint.every = 1, 0, 10
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir: Path) -> dict[int, tuple[float, ...]]:
    """Everything a step computed, by step."""
    names = ("loss", "loss_rec", "loss_direct", "loss_gen", "grad_norm", "lr")
    lines = (line for line in metrics(workdir) if "loss" in line)  # others are scores
    return {line["step"]: tuple(line[name] for name in names) for line in lines}


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
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "amd_jax.main", f"--config={config}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
