"""The tasks by name: what a method's row chooses from."""

from collections.abc import Callable

from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.step import Task

TASKS: dict[str, Callable[[ConfigDict, int], Task]] = {
    "pretrain": Pretraining.from_config,
    "classify": Finetuning.from_config,
}


def make_task(config: ConfigDict, classes: int) -> Task:
    """The task of `config.method`, for data with so many classes."""
    return TASKS[methods.of(config).task](config, classes)
