"""The weights a run starts from: the frozen teacher's, and the student's unless they are random."""

from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from amd_jax.convert.load import Loaded, load_encoder, load_student
from amd_jax.convert.tables import flatten, nest
from amd_jax.steps.pretrain import Pretraining


def load_teacher(config: ConfigDict, pretraining: Pretraining) -> Any:
    """The teacher's parameters from `teacher.weights`, on the host; layers above its last are not loaded."""
    assert pretraining.teacher is not None
    want, channels = pretraining.teacher.config, config.data.channels
    src = config.teacher.weights
    loaded = load_encoder(src, want, pretraining.patch, channels, final_norm=False)
    _report("teacher", src, loaded)
    return loaded.params


def start_student(config: ConfigDict, pretraining: Pretraining, params: Any) -> Any:
    """Random `params` with whatever `student.weights` can fill in their place, on the same devices."""
    src = config.student.weights
    loaded = load_student(src, pretraining.student, pretraining.patch, config.data.channels)
    _report("student", src, loaded)
    given = flatten(loaded.params)
    where = jax.tree.map(lambda x: x.sharding, params)
    host = flatten(params) | {name: np.asarray(x, np.float32) for name, x in given.items()}
    return jax.device_put(nest(host), where)


def _report(who: str, src: str, loaded: Loaded) -> None:
    if jax.process_index() == 0:
        print(f"{who} weights from {src}:", *loaded.report, sep="\n  ")
    for name in loaded.new:
        logging.info("%s: %s is newly initialised", who, name)
