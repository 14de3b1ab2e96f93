"""A program with its arrays on the devices, and how long it took to its first step."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from amd_jax import compilation_cache
from amd_jax.train import preflight
from amd_jax.train.program import Program
from amd_jax.train.random_arrays import draw, random_batch


@dataclasses.dataclass(frozen=True)
class Start:
    """Seconds to the first step, by what they went into.

    Attributes:
      lowering: from Python to the program that the compiler gets.
      compiling: or reading a program that was kept.
      weights: those of student, optimiser and teacher, drawn at random; a run reads its teacher instead.
      step: the first one.
    """

    lowering: float
    compiling: float
    weights: float
    step: float

    @property
    def total(self) -> float:
        """Seconds from the config to the end of the first step, data not counted."""
        return self.lowering + self.compiling + self.weights + self.step


class Running:
    """A program that steps over one random batch, or over batches that it is given."""

    def __init__(self, program: Program, classes: int) -> None:
        """Compiles the step, draws everything and makes the first step; `start` says how long each took.

        Raises:
          ConfigError: the devices have too little memory.
        """
        self.program = program
        clock = _Clock()
        lowered = program.lower()
        lowering = clock.lap()
        self.compiled = lowered.compile()
        compiling = clock.lap()
        self.memory = preflight.step_memory(self.compiled, program.mesh.devices.flat[0].platform)
        preflight.check_memory("a step", self.memory, preflight.device_memory(program.mesh), program.config)
        self.batch = random_batch(program, classes)
        jax.block_until_ready(self.batch)
        clock.lap()
        seed = program.config.seed
        self.state = draw(program.init_state, seed, program.state, {})
        self._teacher = draw(program.init_teacher, seed + 1, program.teacher) if program.teacher else {}
        jax.block_until_ready((self.state, self._teacher))
        weights = clock.lap()
        # CPU devices that meet in a collective may deadlock if steps run ahead.
        self.waits = program.mesh.size > 1 and program.mesh.devices.flat[0].platform == "cpu"
        self.window(1)
        self.start = Start(lowering, compiling, weights, clock.lap())

    def step(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """One step; its metrics, for which nobody has waited yet."""
        self.state, metrics = self.compiled(self.state, self._teacher, batch)
        if self.waits:
            jax.block_until_ready(metrics)
        return metrics

    def window(self, steps: int) -> float:
        """Seconds of `steps` steps one after the other, the last one's end included."""
        began = time.perf_counter()
        for _ in range(steps):
            self.step(self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - began


def cold_and_warm(program: Program, classes: int, say: Callable[[str], None]) -> tuple[Running, Start]:
    """Starts a program twice, first with an empty compilation cache and then with what the first start kept.

    The second one comes back, and how long the first one took.
    Both in this process, so neither importing jax nor finding the devices is in it.

    Raises:
      ConfigError: the devices have too little memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        with compilation_cache.elsewhere(Path(folder)):
            say("first step, nothing compiled before")
            cold = Running(program, classes).start
        with compilation_cache.elsewhere(Path(folder)):
            say("first step again, with what is compiled now")
            running = Running(program, classes)
    return running, cold


def device_peak(program: Program) -> int | None:
    """Bytes that the fullest of this process's devices has held since the start; None: it does not tell."""
    stats: list[Any] = [device.memory_stats() for device in program.mesh.local_devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return max(peaks, default=None)


class _Clock:
    """Seconds since it was asked last."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
