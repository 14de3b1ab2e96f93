"""Measures one program, or two that take turns."""

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from amd_jax import compilation_cache, hardware
from amd_jax.data.example import Source
from amd_jax.measuring.ceiling import matmul_flops
from amd_jax.measuring.findings import Findings, figures, page, ratio
from amd_jax.measuring.running import Running, Start, cold_and_warm, device_peak
from amd_jax.measuring.windows import Schedule, Spread, in_turn, timed
from amd_jax.planning import compiling, recipe
from amd_jax.train import preflight
from amd_jax.train import program as programs
from amd_jax.train.program import Program

PHOTOGRAPHS = (1_281_167, 1000)  # examples and classes where nobody knows: the first decide nothing here


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command's flags of these names say."""

    steps: int
    warmup: int
    cold: bool
    input: bool


@dataclasses.dataclass(frozen=True)
class Measured:
    """One program or two, and how long the second one's step takes over the first one's."""

    programs: tuple[Findings, ...]
    ratio: Spread | None

    def page(self) -> str:
        """As text."""
        pages = [page(found) for found in self.programs]
        if self.ratio is not None:
            pages.append(ratio(self.ratio, *self.programs))
        return "\n".join(pages)

    def figures(self) -> dict[str, Any]:
        """As what JSON can hold."""
        of = dataclasses.asdict(self.ratio) if self.ratio else None
        return {"jax": jax.__version__, "programs": [figures(f) for f in self.programs], "ratio": of}


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What was asked to be measured, before it is."""

    name: str
    config: ConfigDict
    program: Program
    classes: int
    source: Source | None


def measure(wanted: Sequence[tuple[str, ConfigDict]], options: Options, devices: Any = None) -> Measured:
    """Times the programs of one config or two, each under its name.

    On all devices, or those that are given. The input is that of the first config.

    Raises:
      UserError: something that the user has to change.
    """
    compilation_cache.enable()
    say = _clock()
    subjects = [_subject(*each, options.input and i == 0, devices) for i, each in enumerate(wanted)]
    ceilings = {s.program.config.model.dtype: 0.0 for s in subjects}
    for dtype in ceilings:
        say(f"matrix products in {dtype}")
        ceilings[dtype] = matmul_flops(subjects[0].program.mesh, dtype)
    started = [_started(s, options.cold, say) for s in subjects]
    running = [each for each, _ in started]
    schedule = _schedule(running, options, say)
    of: Spread | None = None
    if len(running) == 1:
        steps = [timed(running[0].window, schedule)]
    else:
        one, other, of = in_turn(running[0].window, running[1].window, schedule)
        steps = [one, other]
    held = device_peak(subjects[0].program)
    found = [
        _findings(s, r, cold, step, ceilings[s.program.config.model.dtype], held)
        for s, (r, cold), step in zip(subjects, started, steps, strict=True)
    ]
    if subjects[0].source is not None:
        from amd_jax.measuring.feeding import feed

        fed = feed(subjects[0].config, subjects[0].source, running[0], schedule, say)
        found[0] = dataclasses.replace(found[0], feeding=fed)
    return Measured(tuple(found), of)


def _subject(name: str, config: ConfigDict, reads: bool, devices: Any) -> _Subject:
    """A valid config's program, without weights, and without data unless it `reads` them."""
    config = recipe.plannable(config)
    mesh = programs.make_mesh(config, devices)
    if reads:
        from amd_jax.data import sources

        source = sources.make_source(config.data, "train")
        examples, classes = len(source), source.num_classes
    else:
        source = None
        examples, classes = recipe.known_size(config, name.split()[0]) or PHOTOGRAPHS
    return _Subject(name, config, programs.build(config, mesh, examples, classes), classes, source)


def _started(subject: _Subject, cold: bool, say: Callable[[str], None]) -> tuple[Running, Start | None]:
    """The program after its first step, and how long that took with nothing compiled before."""
    say(f"{subject.name}: compiling, which takes minutes for large models")
    if cold:
        return cold_and_warm(subject.program, subject.classes, say)
    return Running(subject.program, subject.classes), None


def _schedule(running: Sequence[Running], options: Options, say: Callable[[str], None]) -> Schedule:
    """Warms up; the windows are the same for both programs, by the slower one."""
    for each in running:
        each.window(options.warmup)
    one = 0.0 if options.steps else max(each.window(1) for each in running)
    schedule = Schedule.of(options.steps, one)
    say(f"{schedule.windows} windows of {schedule.size} steps")
    return schedule


def _findings(
    subject: _Subject, running: Running, cold: Start | None, step: Spread, ceiling: float, held: int | None
) -> Findings:
    program, model = subject.program, subject.program.config.model
    device = program.mesh.devices.flat[0]
    peak = hardware.peak_flops(device.device_kind, model.dtype)
    return Findings(
        config=subject.name,
        devices=program.mesh.size,
        kind=device.device_kind,
        platform=device.platform,
        mesh={name: int(size) for name, size in program.mesh.shape.items()},
        batch_size=program.config.batch_size,
        views=program.config.batch_size * program.config.data.repeats,
        dtype=model.dtype,
        attention=model.attention,
        remat=model.remat,
        accum_steps=program.config.accum_steps,
        flops=program.flops_per_step,
        ceiling=ceiling,
        peak=peak * program.mesh.size if peak else None,
        start=running.start,
        cold=cold,
        step=step,
        memory=compiling.memory(running.compiled),
        needed=running.memory,
        available=preflight.device_memory(program.mesh),
        device_peak=held,
        host_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        feeding=None,
    )


def _clock() -> Callable[[str], None]:
    """Lines on the standard error, with the seconds since the start."""
    began = time.perf_counter()
    return lambda what: print(f"[{time.perf_counter() - began:4.0f} s] {what}", file=sys.stderr, flush=True)
