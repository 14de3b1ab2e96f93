"""What a run computes, from its config and a mesh alone: nothing is allocated, read or compiled to build it.

Training, tests and whoever wants to know of a step before it runs build it here; the mesh's devices may be
those of another machine.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from amd_jax import hardware, methods, sharding
from amd_jax.errors import ConfigError
from amd_jax.models import build as models
from amd_jax.models.quantized import quantize
from amd_jax.steps.step import Step, Task, make_step
from amd_jax.steps.tasks import make_task
from amd_jax.steps.train_state import TrainState
from amd_jax.train import optim
from amd_jax.trees import overlay, path_name


@dataclasses.dataclass(frozen=True)
class Program:
    """The step of a run, and the shapes, types and shardings of what it takes.

    Attributes:
      config: of the run, every "auto" resolved for the mesh's devices.
      task: networks and loss.
      total_steps: optimiser steps of the whole run.
      steps_per_epoch: optimiser steps of a pass over the data.
      learning_rate: by step.
      state: abstract, as are `teacher` (an empty dict without one) and `batch`.
      step: the pure function from these three to the next state and the metrics.
    """

    config: ConfigDict
    mesh: jax.sharding.Mesh
    task: Task
    total_steps: int
    steps_per_epoch: float
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation
    state: TrainState
    teacher: Any
    batch: dict[str, jax.ShapeDtypeStruct]
    step: Step

    @property
    def flops_per_step(self) -> float:
        """Model FLOPs over all devices, recomputation not counted."""
        return float(self.task.flops_per_example * self._views)

    @property
    def eight_bit_flops_per_step(self) -> float:
        """Those of `flops_per_step` that the teacher does in eight bits."""
        return float(self.task.eight_bit_flops_per_example * self._views)

    @property
    def _views(self) -> int:
        """Examples of a step, over all devices."""
        return self.config.batch_size * self.config.data.repeats

    def init_state(self, key: jax.Array, start: Any) -> TrainState:
        """The state before the first step: the parameters in `start`, and random ones where it has none."""
        return _init_state(self.task, self.optimizer, self.config, key, start)

    def init_teacher(self, key: jax.Array) -> Any:
        """A random teacher, in the types that the step takes."""
        return cast_teacher(self.config, self.task.init_frozen(key))

    def lower(self) -> jax.stages.Lowered:
        """The step for the one batch shape of the run, which takes over the memory of the old state."""
        out = (where(self.state), sharding.replicated(self.mesh))
        options = hardware.compiler_options(self.mesh.devices.flat[0].platform)
        jitted = jax.jit(self.step, donate_argnums=0, out_shardings=out, compiler_options=options or None)
        return jitted.lower(self.state, self.teacher, self.batch)


def make_mesh(config: ConfigDict, devices: Any = None) -> jax.sharding.Mesh:
    """The mesh that a config asks for, over all devices or those that are given.

    Raises:
      ConfigError: there is none.
    """
    try:
        return sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    except ValueError as error:
        raise ConfigError(f"mesh: {error}; set mesh.data, mesh.fsdp and mesh.tensor") from error


def build(config: ConfigDict, mesh: jax.sharding.Mesh, examples: int, classes: int) -> Program:
    """The program of a valid config on a mesh.

    Args:
      config: checked by `validate`.
      mesh: of devices that may belong to another machine.
      examples: in the training split.
      classes: of its labels; 0: there are none.

    Raises:
      ConfigError: the run has no step, or no labels to learn from, or the mesh cannot share the batch.
    """
    if methods.of(config).labels:
        need_labels(config, "train", classes)
    config = hardware.resolved(config, mesh.devices.flat[0].platform)
    _check_shards(config, mesh)
    steps_per_epoch = examples / config.batch_size
    total_steps = config.steps or int(config.epochs * steps_per_epoch)
    if total_steps < 1:
        raise ConfigError(f"epochs={config.epochs} of {examples} examples is less than one step")
    task = make_task(config, classes)
    learning_rate = optim.schedule(config, total_steps, steps_per_epoch)
    optimizer = optim.optimizer(config, learning_rate)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(lambda k: _init_state(task, optimizer, config, k, {}), key)
    teacher = jax.eval_shape(lambda k: cast_teacher(config, task.init_frozen(k)), key)
    step = make_step(
        task,
        optimizer,
        learning_rate,
        config.seed,
        config.accum_steps,
        sharding.batch_sharding(mesh),
        config.finetune.ema,
    )
    return Program(
        config=config,
        mesh=mesh,
        task=task,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        learning_rate=learning_rate,
        optimizer=optimizer,
        state=_placed(state, mesh),
        teacher=_placed(teacher, mesh),
        batch=_batch(config, task, mesh),
        step=step,
    )


def is_scored(config: ConfigDict) -> bool:
    """Whether the run reads the evaluation split's labels: fine-tuning does, and a probe."""
    return methods.of(config).labels or config.probe.every_epochs > 0


def need_labels(config: ConfigDict, split: str, classes: int, who: str = "") -> None:
    """Raises ConfigError where `who`, or the method, wants labels of a split that has no classes."""
    if classes:
        return
    who = who or f"method={config.method!r}"
    name = config.data[f"{split}_split"] or {"train": "train", "eval": "val"}[split]
    line = f"{who} needs labels, which the examples of data.path={config.data.path!r} ({name}) do not have"
    if config.data.source == "folder":
        line += (
            f": put them into {name}/<class>/, or where the folders in data.path are the classes set "
            f"data.{split}_split='.'"
        )
    raise ConfigError(line)


def where(abstract: Any) -> Any:
    """The shardings of a tree of abstract arrays."""
    return jax.tree.map(lambda x: x.sharding, abstract)


def cast_teacher(config: ConfigDict, params: Any) -> Any:
    """Matrices in the compute type, for nobody updates them; norms and positions are computed in float32.

    Those of the blocks in eight bits, where `teacher.dtype` says so and they are not yet.
    """
    dtype = models.compute_dtype(config)

    def cast(path: tuple[Any, ...], x: Any) -> Any:
        name = path_name(path)
        if not name.endswith(("kernel", "qkv")):
            return x
        if config.teacher.dtype and "blocks/layers/" in name:
            return quantize(x, config.teacher.dtype, axis=1)  # after the layers' axis
        return x.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def _check_shards(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    """Every device gets as many examples as the others."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    per_pass = config.batch_size * config.data.repeats // config.accum_steps
    if per_pass % shards:
        raise ConfigError(
            f"batch_size={config.batch_size}: {per_pass} examples a pass do not divide over {shards} devices "
            "(mesh.data * mesh.fsdp)"
        )
    if is_scored(config) and config.eval.batch_size % shards:
        raise ConfigError(
            f"eval.batch_size={config.eval.batch_size} does not divide over {shards} devices; set a multiple"
        )


def _init_state(
    task: Task, optimizer: optax.GradientTransformation, config: ConfigDict, key: jax.Array, start: Any
) -> TrainState:
    return TrainState.create(overlay(task.init(key), start), optimizer, config.finetune.ema > 0)


def _placed(shapes: Any, mesh: jax.sharding.Mesh) -> Any:
    """The same shapes with the shardings that the rules give them."""
    shardings = sharding.shardings(shapes, mesh, path_name)
    return jax.tree.map(lambda s, w: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=w), shapes, shardings)


def _batch(config: ConfigDict, task: Task, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What the step takes of a batch: bytes and labels, as the input stream makes them."""
    shape = (config.batch_size * config.data.repeats, *task.input_shape)
    shapes: dict[str, Any] = {"pixels": (shape, np.uint8), "label": (shape[:1], np.int32)}
    sharded = sharding.batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct(*shapes[name], sharding=sharded) for name in task.inputs}
