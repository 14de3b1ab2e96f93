"""The frozen teacher's weights, cut after its last aligned layer."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax.checkpoint import is_run, load_config, load_params
from amd_jax.config import ConfigError
from amd_jax.models.vit import ViT
from amd_jax.train_state import path_name


def load_teacher(config: ConfigDict, teacher: ViT) -> Any:
    """Parameters for `teacher` from `config.teacher.weights`, on the host."""
    src = config.teacher.weights
    if not is_run(src):
        raise ConfigError(f"teacher.weights={src!r}: not a workdir of a run")
    load_config(src)
    params = load_params(src)[0]["encoder"]
    params.pop("norm", None)
    depth = teacher.config.depth
    params["blocks"] = jax.tree.map(lambda p: np.asarray(p[:depth]), params["blocks"])
    _ = path_name
    return params
