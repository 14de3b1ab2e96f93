"""The weights a run starts from: the frozen teacher's, and the student's unless they are random."""

import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from amd_jax import methods
from amd_jax.config import height_width
from amd_jax.convert.files.opening import open_source, read_stated
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.kinds import OF_ANY_PIXELS, original_kind, recognise
from amd_jax.convert.load import Loaded, load_classifier, load_encoder, load_student
from amd_jax.errors import ConfigError, UserError
from amd_jax.models import build
from amd_jax.processes import meet


def with_teacher_pixels(config: ConfigDict) -> ConfigDict:
    """The config with `teacher.mean`, `.std` and `.resize` set, in a copy where they were not.

    A key that is set stays; else it is what the weights' files say, else as for the student (`resize`:
    bicubic). What was found, and what was assumed, is printed.

    Raises:
      ConfigError: the files are not readable, or speak of another number of channels.
    """
    teacher, data = config.teacher, config.data
    said = read_stated(teacher.weights) if teacher.weights else Stated()
    config = config.copy_and_resolve_references()
    for name in ("mean", "std"):
        try:
            config.teacher[name] = teacher[name] or said.per_channel(name, data.channels) or data[name]
        except UserError as error:
            keys = "config.data.channels, or config.teacher.mean and .std"
            raise ConfigError(f"teacher.weights: {error}; set {keys}") from error
    patch, size, how = build.teacher_patch(config)[1], height_width(data.image_size), teacher.resize
    if resized := patch != config.model.patch_size:
        size = build.grid(config)[1] * patch, build.grid(config)[2] * patch
        known = said.interpolation in ("bicubic", "bilinear")
        config.teacher.resize = how = how or (said.interpolation if known else "bicubic")
    silent = teacher.weights and not (said.mean or (teacher.mean and teacher.std))
    assumed = silent and original_kind(recognise(open_source(teacher.weights))) in OF_ANY_PIXELS
    if jax.process_index() == 0:
        mean, std = (", ".join(f"{x:g}" for x in config.teacher[name]) for name in ("mean", "std"))
        if assumed:
            print(
                f"assumed: the teacher saw pixels of mean {mean} and std {std}, because the weights do not "
                "say; --config.teacher.mean and --config.teacher.std set it"
            )
        elif said.mean:
            where = "as set" if teacher.mean or teacher.std else f"as {said.origin} says"
            print(f"the teacher sees pixels of mean {mean} and std {std}, {where}")
        if resized:
            print(f"the teacher sees the student's images resized to {size[0]}x{size[1]} pixels, {how}")
        if other := said.differing_input(size, data.frames > 1):
            print(f"the teacher was trained on other inputs: {other}")
    return config


def load_teacher(config: ConfigDict, task: Any) -> Any:
    """The teacher's parameters from `teacher.weights`, on the host; layers above its last are not loaded."""
    src, channels = config.teacher.weights, config.data.channels
    if methods.of(config).teacher == "logits":
        classifier = task.teacher.clone(encoder=task.teacher.encoder.in_floats)
        loaded = load_classifier(src, classifier, task.patch, channels, who="teacher")
        if loaded.new:
            raise ConfigError(
                f"teacher.weights={src!r} has no {', '.join(loaded.new)}: give a fine-tuned teacher"
            )
    else:
        patch = build.teacher_patch(config)
        loaded = load_encoder(src, task.teacher.config.in_floats, patch, channels, final_norm=False)
    _report("teacher", src, loaded)
    return loaded.params


def load_start(config: ConfigDict, task: Any) -> dict[str, Any]:
    """The parameters that `student.weights` can fill, on the host; empty where it is not set.

    Raises:
      ConfigError: the weights are not those of the student.
    """
    src, channels = config.student.weights, config.data.channels
    if not src:
        return {}
    if methods.of(config).labels:
        loaded = load_classifier(src, task.model, task.patch, channels)
        if config.eval.only and loaded.new:
            raise ConfigError(
                f"eval.only: student.weights={src!r} has no {', '.join(loaded.new)}: give a fine-tuned model"
            )
    else:
        loaded = load_student(src, task.student, task.patch, channels)
    _report("student", src, loaded, *_other_pixels(config, read_stated(src)))
    checksum(loaded.params, "student")
    return loaded.params


def checksum(params: Any, who: str) -> int:
    """CRC-32 of host arrays.

    Raises:
      ConfigError: another process has others.
    """
    total = 0
    for leaf in jax.tree.leaves(params):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    meet()  # reading takes each process its own time
    if len(set(multihost_utils.process_allgather(np.uint32(total)).flat)) > 1:
        raise ConfigError(
            f"{who}.weights: the processes read different weights; give a path that all of them see alike"
        )
    return total


def _other_pixels(config: ConfigDict, said: Stated) -> list[str]:
    """A line where the student's weights were trained on pixels of another mean or std than the run's."""
    data = config.data
    try:
        theirs = {name: said.per_channel(name, data.channels) for name in ("mean", "std")}
    except UserError as error:
        return [f"note         {error}"]
    if not said.mean or all(values == tuple(data[name]) for name, values in theirs.items()):
        return []
    keys = " ".join(f"--config.data.{name}={','.join(map(str, values))}" for name, values in theirs.items())
    return [
        f"note         {said.origin} says the weights saw pixels of another mean and std; as they did: {keys}"
    ]


def _report(who: str, src: str, loaded: Loaded, *more: str) -> None:
    if jax.process_index() == 0:
        print(f"{who} weights from {src}:", *loaded.report, *more, sep="\n  ")
