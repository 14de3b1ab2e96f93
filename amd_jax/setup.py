"""What a run needs before its first step: data, mesh, state (new or restored), teacher, compiled step."""

import dataclasses
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from amd_jax import optim, preflight, sharding
from amd_jax.checkpoint import Checkpoints, load_config, save_config
from amd_jax.config import ConfigError, flat
from amd_jax.data import sources
from amd_jax.models import build
from amd_jax.processes import meet
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.step import Task, make_step
from amd_jax.train_state import TrainState, path_name
from amd_jax.validate import validate
from amd_jax.weights import load_teacher, start_student

# Initial weights are drawn once: on the CPU, optimising that code takes longer than it saves.
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass
class Run:
    """A run that is ready to step, or with `eval.only` to be scored.

    `step` is compiled: another shape is an error, not a recompilation. It is None where nothing is trained.
    """

    config: ConfigDict
    workdir: Path
    mesh: jax.sharding.Mesh
    task: Task
    source: sources.Source
    eval_source: sources.Source
    order: dict[str, int]  # what the data order and the teacher depend on
    total_steps: int
    eval_every: int  # steps between evaluations, or between probes; there is one after the last step anyway
    checkpoints: Checkpoints
    start_step: int
    state: TrainState
    teacher: Any
    step: Callable[[TrainState, Any, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]] | None
    flops_per_step: float
    peak_memory: int | None  # bytes a device needs for a step, where the compiler says

    def position(self, step: int) -> dict[str, int]:
        """Where the run is after `step`, and what must not change when it goes on; saved with the state."""
        return {"step": step, **self.order}


def prepare(config: ConfigDict, workdir: str) -> Run:
    """Set a run up, in the order in which mistakes are cheapest to find.

    Raises:
      ConfigError: anything the user has to change.
    """
    validate(config)
    workdir = local_folder(workdir)
    folder = Path(workdir)
    _check_place(folder)
    stages = Stages()
    mesh = _mesh(config)
    source = sources.make_source(config.data, "train")
    eval_source = _eval_source(config, source)
    steps_per_epoch = len(source) / config.batch_size
    total_steps = config.steps or int(config.epochs * steps_per_epoch)
    if total_steps < 1:
        raise ConfigError(f"epochs={config.epochs} of {len(source)} examples is less than one step")
    stages.done(f"data: {len(source)} examples for training, {len(eval_source)} for evaluation")

    task = make_task(config, source)
    learning_rate = optim.schedule(config, total_steps, steps_per_epoch)
    optimizer = optim.optimizer(config, learning_rate)

    train = not config.eval.only  # nor is the run's own record touched by an evaluation
    teacher, fingerprint = _place_teacher(config, task, mesh) if train else ({}, 0)
    order = {**_data_order(config, source), "teacher": fingerprint}
    if teacher:
        stages.done("teacher: loaded" if config.teacher.weights else "teacher: random weights made")

    memory = preflight.device_memory(mesh)
    checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    start_step = checkpoints.newest_whole(set_aside=train)
    if start_step:
        _report_changed_keys(workdir, config)
    elif train:  # before the arrays are made, which a CPU without room does not survive
        _, abstract = _abstract_state(task, optimizer, mesh, config.finetune.ema > 0)
        need = preflight.tree_memory((abstract, teacher))
        preflight.check_memory("the state alone", need, memory, config)
    state, position = _state(config, task, optimizer, mesh, checkpoints, start_step)
    if train and start_step and position != {"step": start_step, **order}:
        raise ConfigError(
            f"{workdir}: the checkpoint of step {start_step} was made with {position}, this run has {order}; "
            "it would not be the same run, so start in another workdir"
        )
    where = f"going on from the checkpoint of step {start_step} in {workdir}"
    stages.done(f"state: {where if start_step else 'new'}")

    compiled, peak_memory = None, None
    if train:
        step = make_step(
            task,
            optimizer,
            learning_rate,
            config.seed,
            config.accum_steps,
            sharding.batch_sharding(mesh),
            config.finetune.ema,
        )
        stages.begin("step: compiling, which takes minutes for large models")
        compiled = _compile(step, config, task, mesh, state, teacher)
        stages.done("step: compiled")
        peak_memory = preflight.step_memory(compiled)
        preflight.check_memory("a step", peak_memory, memory, config)
        _claim(folder, config)
    meet()
    scoring = config.eval if isinstance(task, Finetuning) else config.probe
    eval_every = (
        max(1, round(scoring.every_epochs * steps_per_epoch)) if scoring.every_epochs else total_steps
    )
    return Run(
        config=config,
        workdir=folder,
        mesh=mesh,
        task=task,
        source=source,
        eval_source=eval_source,
        order=order,
        total_steps=total_steps,
        eval_every=eval_every,
        checkpoints=checkpoints,
        start_step=start_step,
        state=state,
        teacher=teacher,
        step=compiled,
        flops_per_step=float(task.flops_per_example * config.batch_size * config.data.repeats),
        peak_memory=peak_memory,
    )


class Stages:
    """Says on process 0 what the set-up has done and how long it took; large models take minutes."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def begin(self, what: str) -> None:
        """Names a stage that may take long."""
        if jax.process_index() == 0:
            print(what, flush=True)

    def done(self, what: str) -> None:
        """A line with the seconds since the stage before."""
        now = time.perf_counter()
        self.begin(f"{what} ({now - self._began:.1f} s)")
        self._began = now


def local_folder(workdir: str) -> str:
    """The path of `--workdir`; raises ConfigError for a URL, which would become a folder of that name."""
    if "://" in workdir:
        raise ConfigError(f"--workdir={workdir}: give a directory; mount remote storage to use it")
    return os.path.expanduser(workdir)


def _check_place(folder: Path) -> None:
    """A workdir that cannot be made is noticed here; it is made when everything else is known to work."""
    above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"--workdir={folder}: {above} is not a directory that can be written to")


def _claim(folder: Path, config: ConfigDict) -> None:
    """Makes the workdir and writes the config; nothing is there of a run that could not start."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            save_config(str(folder), config)
    except OSError as error:
        raise ConfigError(f"--workdir={folder}: cannot be written to ({error.strerror})") from error


def _is_scored(config: ConfigDict) -> bool:
    """Whether the run reads the evaluation split's labels: fine-tuning does, and a probe."""
    return config.method in ("finetune", "kd") or config.probe.every_epochs > 0


def _eval_source(config: ConfigDict, train: sources.Source) -> sources.Source:
    """The evaluation split; where nothing is scored it is only drawn from, and training images do as well."""
    try:
        source = sources.make_source(config.data, "eval")
    except ConfigError:
        if config.data.eval_split or _is_scored(config):
            raise
        return train
    if source.num_classes > train.num_classes:
        raise ConfigError(f"evaluation has {source.num_classes} classes, training {train.num_classes}")
    return source


def make_task(config: ConfigDict, source: sources.Source) -> Task:
    """What `config.method` names."""
    if config.method in ("finetune", "kd"):
        return Finetuning.from_config(config, source.num_classes)
    return Pretraining.from_config(config)


def _data_order(config: ConfigDict, source: sources.Source) -> dict[str, int]:
    """What the data order depends on; it must not change between a checkpoint and its continuation."""
    return {
        "examples": len(source),
        "batch_size": config.batch_size,
        "repeats": config.data.repeats,
        "seed": config.seed,
    }


def _mesh(config: ConfigDict) -> jax.sharding.Mesh:
    try:
        mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    except ValueError as error:
        raise ConfigError(f"mesh: {error}; set mesh.data, mesh.fsdp and mesh.tensor") from error
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    per_pass = config.batch_size * config.data.repeats // config.accum_steps
    if per_pass % shards:
        raise ConfigError(
            f"batch_size={config.batch_size}: {per_pass} examples a pass do not divide over {shards} devices "
            "(mesh.data * mesh.fsdp)"
        )
    if jax.local_device_count() % mesh.shape["tensor"]:
        raise ConfigError(
            f"mesh.tensor={mesh.shape['tensor']} must divide the {jax.local_device_count()} devices of a "
            "process: each process reads the examples of its own devices"
        )
    if _is_scored(config) and config.eval.batch_size % shards:
        raise ConfigError(
            f"eval.batch_size={config.eval.batch_size} does not divide over {shards} devices; set a multiple"
        )
    return mesh


def _abstract_state(
    task: Task, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh, ema: bool = False
) -> tuple[Callable[[jax.Array], TrainState], TrainState]:
    """A function from key to state, and the state's shapes with their shardings."""

    def init(key: jax.Array) -> TrainState:
        return TrainState.create(task.init(key), optimizer, ema)

    shapes = jax.eval_shape(init, jax.random.key(0))
    where = sharding.shardings(shapes, mesh, path_name)
    abstract = jax.tree.map(lambda s, w: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=w), shapes, where)
    return init, abstract


def _state(
    config: ConfigDict,
    task: Task,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    step: int,
) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint's state and data position, or a new state; born on the devices it belongs to."""
    init, abstract = _abstract_state(task, optimizer, mesh, config.finetune.ema > 0)
    if step:
        return checkpoints.restore(abstract, step)
    where = jax.tree.map(lambda s: s.sharding, abstract)
    state = _draw(init, config.seed, where)
    if config.student.weights:
        params = start_student(config, task, state.params)
        # The optimiser has seen nothing yet, so only the parameters and their running mean change. The mean
        # is a copy because the step takes over the memory of both.
        state = state.replace(
            params=params, ema=jax.tree.map(jnp.copy, params) if config.finetune.ema else {}
        )
    return state, {}


def _draw(init: Callable[[jax.Array], Any], seed: int, where: Any) -> Any:
    """Random weights, made on the devices they belong to."""
    options = QUICK_COMPILE if jax.default_backend() == "cpu" else None
    return jax.jit(init, out_shardings=where, compiler_options=options)(jax.random.key(seed))


def _place_teacher(config: ConfigDict, task: Task, mesh: jax.sharding.Mesh) -> tuple[Any, int]:
    """The teacher's parameters in the compute type (nobody updates them), shared like the student's.

    And a checksum of them: a run that goes on must not do so with another teacher.
    """
    shapes = jax.eval_shape(task.init_frozen, jax.random.key(0))
    if not shapes:
        return {}, 0
    dtype = build.compute_dtype(config)
    where = sharding.shardings(shapes, mesh, path_name)

    def keep_norms(path: tuple[Any, ...], x: Any) -> Any:
        # Only matrices are cast: norms and positions are computed in float32.
        return x.astype(dtype) if path_name(path).endswith(("kernel", "qkv")) else x

    if not config.teacher.weights:
        logging.warning("the teacher is random (teacher.random=True): good for timing and tests only")

        def init(key: jax.Array) -> Any:
            return jax.tree_util.tree_map_with_path(keep_norms, task.init_frozen(key))

        return _draw(init, config.seed + 1, where), config.seed + 1
    params = load_teacher(config, task)
    checksum = 0
    for leaf in jax.tree.leaves(params):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), checksum)
    return jax.device_put(jax.tree_util.tree_map_with_path(keep_norms, params), where), checksum


def _compile(
    step: Any, config: ConfigDict, task: Task, mesh: jax.sharding.Mesh, state: Any, teacher: Any
) -> Any:
    """Compile ahead of time for the one batch shape of the run."""
    shape = (config.batch_size * config.data.repeats, *task.input_shape)
    shapes = {"pixels": (shape, np.uint8), "label": (shape[:1], np.int32)}
    where = sharding.batch_sharding(mesh)
    batch = {name: jax.ShapeDtypeStruct(*shapes[name], sharding=where) for name in task.inputs}
    out = (jax.tree.map(lambda x: x.sharding, state), sharding.replicated(mesh))
    jitted = jax.jit(step, donate_argnums=0, out_shardings=out)
    return jitted.lower(state, teacher, batch).compile()


def _report_changed_keys(workdir: str, config: ConfigDict) -> None:
    """A continued run may change, say, log.every; whoever does so by accident should see it."""
    before = flat(load_config(workdir))
    now = flat(config)
    for name in sorted(before.keys() | now.keys()):
        if _plain(before.get(name)) != _plain(now.get(name)):
            logging.warning(
                "%s was %r when this run began and is %r now", name, before.get(name), now.get(name)
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
