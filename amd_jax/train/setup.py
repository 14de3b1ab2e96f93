"""What a run needs before its first step: data, program, teacher, state (new or restored), compiled step."""

import dataclasses
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from amd_jax import buckets, methods, sharding
from amd_jax.config import flat
from amd_jax.data import sources
from amd_jax.errors import ConfigError, UserError
from amd_jax.hosts import alike, star
from amd_jax.processes import meet
from amd_jax.steps import losses
from amd_jax.steps.train_state import TrainState
from amd_jax.train import preflight
from amd_jax.train import program as programs
from amd_jax.train.checkpoint import Checkpoints
from amd_jax.train.program import Program
from amd_jax.train.random_arrays import draw
from amd_jax.train.validate import validate
from amd_jax.train.weights import checksum, load_start, load_teacher, with_teacher_pixels
from amd_jax.trees import path_name
from amd_jax.workdir import load_config, save_classes, save_config


@dataclasses.dataclass
class Run:
    """A run that is ready to step, or with `eval.only` to be scored.

    `step` is compiled: another shape is an error, not a recompilation. It is None where nothing is trained.
    """

    config: ConfigDict  # as it is recorded; that of the program has no "auto" left
    workdir: Path
    program: Program
    source: sources.Source
    eval_source: sources.Source
    order: dict[str, int]  # what the data order and the teacher depend on
    checkpoints: Checkpoints
    start_step: int
    state: TrainState
    teacher: Any
    step: Callable[[TrainState, Any, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]] | None
    peak_memory: int | None  # bytes a device needs for a step, where the compiler says

    def position(self, step: int) -> dict[str, int]:
        """Where the run is after `step`, and what must not change when it goes on; saved with the state."""
        return {"step": step, **self.order}


def prepare(config: ConfigDict, workdir: str) -> Run:
    """Set a run up, in the order in which mistakes are cheapest to find. The workdir is made last.

    Raises:
      UserError: anything the user has to change.
    """
    validate(config)
    folder = buckets.place(os.path.expanduser(workdir))
    _check_place(folder, writing=not config.eval.only)
    alike.check_workdir(folder)
    stages = Stages()
    mesh = programs.make_mesh(config)
    source = sources.make_source(config.data, "train")
    if methods.of(config).labels:
        programs.need_labels(config, "train", source.num_classes)
    eval_source = _eval_source(config, source)
    train = not config.eval.only  # nor is the run's own record touched by an evaluation
    config = _resolved(config, train)
    _check_alike(config, source, eval_source)
    program = programs.build(config, mesh, len(source), source.num_classes)
    held = f", data.holdout={config.data.holdout} of the training split" if config.data.holdout else ""
    stages.done(f"data: {len(source)} examples for training, {len(eval_source)} for evaluation{held}")
    if config.probe.every_epochs and not (source.num_classes and eval_source.num_classes):
        stages.begin("probe: left out, as it needs labels, which the data do not have")

    teacher, fingerprint = _teacher(program) if train else ({}, 0)
    order = {**_data_order(config, source), "teacher": fingerprint}
    if teacher:
        stages.done("teacher: loaded" if config.teacher.weights else "teacher: random weights made")

    memory = preflight.device_memory(mesh)
    checkpoints = Checkpoints(str(folder), config.checkpoint.keep)
    start_step = checkpoints.newest_whole(set_aside=train)
    if start_step:
        _report_changed_keys(str(folder), config)
    elif train:  # before the arrays are made, which a CPU without room does not survive
        need = preflight.tree_memory((program.state, program.teacher))
        preflight.check_memory("the state alone", need, memory, config)
    state, position = checkpoints.restore(program.state, start_step) if start_step else (_new(program), {})
    if train and start_step and position != {"step": start_step, **order}:
        raise ConfigError(
            f"{folder}: the checkpoint of step {start_step} was made with {position}, this run has {order}; "
            "it would not be the same run, so start in another workdir"
        )
    where = f"going on from the checkpoint of step {start_step} in {folder}"
    stages.done(f"state: {where if start_step else 'new'}")

    compiled, peak_memory = None, None
    if train:
        stages.begin("step: compiling, which takes minutes for large models")
        compiled = program.lower().compile()
        stages.done("step: compiled")
        peak_memory = preflight.step_memory(compiled, mesh.devices.flat[0].platform)
        preflight.check_memory("a step", peak_memory, memory, config)
        _claim(folder, config, source.class_names if methods.of(config).labels else ())
    meet()  # compiling takes each process its own time
    return Run(
        config=config,
        workdir=folder,
        program=program,
        source=source,
        eval_source=eval_source,
        order=order,
        checkpoints=checkpoints,
        start_step=start_step,
        state=state,
        teacher=teacher,
        step=compiled,
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


def _check_place(folder: Path, writing: bool) -> None:
    """A workdir that cannot be made is noticed here; it is made when everything else is known to work."""
    if buckets.is_url(folder):
        if writing:
            buckets.check_writable(folder)
        return
    above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ConfigError(f"--workdir={folder}: {above} is not a directory that can be written to")


def _claim(folder: Path, config: ConfigDict, class_names: tuple[str, ...]) -> None:
    """Makes the workdir and writes the config; nothing is there of a run that could not start."""
    try:
        if not buckets.is_url(folder):  # a bucket has folders only where there are files
            folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            save_config(str(folder), config)
            if class_names:
                save_classes(str(folder), class_names)
    except OSError as error:
        raise ConfigError(f"--workdir={folder}: cannot be written to ({error.strerror or error})") from error


def _resolved(config: ConfigDict, train: bool) -> ConfigDict:
    """The config with what was left open filled in, in a copy: what the run goes by and records."""
    config = config.copy_and_resolve_references()
    config.loss.align = losses.distance_name(config.loss.align)
    # An evaluation does without the teacher, whose weights may be elsewhere by now.
    return with_teacher_pixels(config) if train and methods.of(config).teacher else config


def _check_alike(config: ConfigDict, source: sources.Source, eval_source: sources.Source) -> None:
    """Several processes read the same data and weights; code and command have been compared before."""
    if star.current is None:
        return
    facts = alike.of_config(flat(config))
    facts |= alike.of_source("training", source) | alike.of_source("evaluation", eval_source)
    for who in ("student", "teacher"):
        facts |= alike.of_weights(who, config[who].weights)
    alike.check(facts)


def _eval_source(config: ConfigDict, train: sources.Source) -> sources.Source:
    """The evaluation split; where nothing is scored it is only drawn from, and training images do as well."""
    try:
        source = sources.make_source(config.data, "eval")
    except UserError:
        if config.data.eval_split or (programs.is_scored(config) and train.num_classes):
            raise
        return train
    if methods.of(config).labels:
        programs.need_labels(config, "eval", source.num_classes)
    if source.num_classes > train.num_classes > 0:
        raise ConfigError(f"evaluation has {source.num_classes} classes, training {train.num_classes}")
    return source


def _data_order(config: ConfigDict, source: sources.Source) -> dict[str, int]:
    """What the data order depends on; it must not change between a checkpoint and its continuation."""
    return {
        "examples": len(source),
        "batch_size": config.batch_size,
        "repeats": config.data.repeats,
        "seed": config.seed,
    }


def _new(program: Program) -> TrainState:
    """The state before the first step, born on the devices it belongs to.

    What `student.weights` gives of it is uploaded, the rest is drawn.
    """
    start = load_start(program.config, program.task)
    given = sharding.place(start, sharding.shardings(start, program.mesh, path_name))
    return draw(program.init_state, program.config.seed, program.state, given)


def _teacher(program: Program) -> tuple[Any, int]:
    """The teacher's parameters in the types that the step takes, shared like the student's.

    And a checksum of them: a run that goes on must not do so with another teacher.
    """
    config = program.config
    if not program.teacher:
        return {}, 0
    if not config.teacher.weights:
        logging.warning("the teacher is random (teacher.random=True): good for timing and tests only")
        return draw(program.init_teacher, config.seed + 1, program.teacher), config.seed + 1
    params = load_teacher(config, program.task)
    fingerprint = checksum(params, "teacher")
    pixels, own = ([tuple(config[who][name]) for name in ("mean", "std")] for who in ("teacher", "data"))
    if pixels != own:  # what it is shown makes another teacher of it
        fingerprint = zlib.crc32(repr(pixels).encode(), fingerprint)
    if config.teacher.patch_size not in (0, config.model.patch_size):
        fingerprint = zlib.crc32(config.teacher.resize.encode(), fingerprint)
    cast = programs.cast_teacher(config, params)
    return sharding.place(cast, programs.where(program.teacher)), fingerprint


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
