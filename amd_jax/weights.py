"""The weights a run starts from: the frozen teacher's, and the student's unless they are random."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax.config import ConfigError
from amd_jax.convert.load import Loaded, load_classifier, load_encoder, load_student
from amd_jax.convert.tables import flatten, nest
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.step import Task


def load_teacher(config: ConfigDict, task: Task) -> Any:
    """The teacher's parameters from `teacher.weights`, on the host; layers above its last are not loaded."""
    src, channels = config.teacher.weights, config.data.channels
    assert isinstance(task, Pretraining | Finetuning)
    assert task.teacher is not None
    if isinstance(task, Finetuning):
        loaded = load_classifier(src, task.teacher, task.patch, channels, who="teacher")
        if loaded.new:
            raise ConfigError(
                f"teacher.weights={src!r} has no {', '.join(loaded.new)}: give a fine-tuned teacher"
            )
    else:
        loaded = load_encoder(src, task.teacher.config, task.patch, channels, final_norm=False)
    _report("teacher", src, loaded)
    return loaded.params


def start_student(config: ConfigDict, task: Task, params: Any) -> Any:
    """Random `params` with whatever `student.weights` can fill in their place, on the same devices."""
    src, channels = config.student.weights, config.data.channels
    if isinstance(task, Finetuning):
        loaded = load_classifier(src, task.model, task.patch, channels)
        if config.eval.only and loaded.new:
            raise ConfigError(
                f"eval.only: student.weights={src!r} has no {', '.join(loaded.new)}: give a fine-tuned model"
            )
    else:
        assert isinstance(task, Pretraining)
        loaded = load_student(src, task.student, task.patch, channels)
    _report("student", src, loaded)
    given = flatten(loaded.params)
    where = jax.tree.map(lambda x: x.sharding, params)
    host = flatten(params) | {name: np.asarray(x, np.float32) for name, x in given.items()}
    return jax.device_put(nest(host), where)


def _report(who: str, src: str, loaded: Loaded) -> None:
    if jax.process_index() == 0:
        print(f"{who} weights from {src}:", *loaded.report, sep="\n  ")
