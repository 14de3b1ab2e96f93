"""The input by itself, and steps over it: whether the data come as fast as they are used."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from amd_jax.data import jobs, pipeline
from amd_jax.data.example import Source
from amd_jax.measuring.findings import Feeding
from amd_jax.measuring.running import Running
from amd_jax.measuring.windows import Schedule, Spread
from amd_jax.sharding import global_batch
from amd_jax.train.throughput import Clock

AHEAD = 2  # steps that a run dispatches before it waits for one


def feed(
    config: ConfigDict, source: Source, running: Running, schedule: Schedule, say: Callable[[str], None]
) -> Feeding:
    """Reads batches alone, then steps over others.

    Args:
      config: of the run.
      source: its training examples.
      running: its program.
      schedule: how many windows of how many batches.
      say: takes a line of progress.

    Raises:
      DataError: too much of it cannot be read.
    """
    began = time.perf_counter()
    with pipeline.train_stream(config, source, start_step=0, process_index=0, process_count=1) as stream:
        say("the input alone")
        next(stream)
        first = time.perf_counter() - began
        _skip(stream, config.data.prefetch)  # what was ready before is no measure
        alone = Spread.of([_read(stream, schedule.size) for _ in range(schedule.windows)])
        say("steps over the input")
        loop, waited = _loop(running, stream, schedule, config.batch_size)
    return Feeding(first, alone, loop, waited, jobs.cores())


def _skip(stream: Iterator[Any], count: int) -> None:
    for _ in itertools.islice(stream, count):
        pass


def _read(stream: Iterator[Any], batches: int) -> float:
    """Seconds of a batch."""
    began = time.perf_counter()
    _skip(stream, batches)
    return (time.perf_counter() - began) / batches


def _loop(
    running: Running, stream: Iterator[Any], schedule: Schedule, batch_size: int
) -> tuple[Spread, float]:
    """Seconds of a step, and how many of them it waits, as a run's loop makes them."""
    program = running.program
    clock = Clock(batch_size)
    found = []
    for window in range(schedule.windows + 1):
        clock.restart(0)
        under_way: deque[Any] = deque()
        for _ in range(schedule.size):
            with clock.waiting():
                batch = next(stream)
            on_device = global_batch({name: batch[name] for name in program.task.inputs}, program.mesh)
            under_way.append(running.step(on_device))
            while len(under_way) > (0 if running.waits else AHEAD):
                jax.block_until_ready(under_way.popleft())
        jax.block_until_ready(running.state)
        if window:  # the first one lives on what was read before
            found.append(clock.interval(schedule.size))
    waited = Spread.of([x["data_wait_seconds"] / schedule.size for x in found]).median
    return Spread.of([x["seconds_per_step"] for x in found]), waited
