"""A trace of some steps, for TensorBoard's profile tab: `--config.log.profile=START:STOP`."""

import re
from pathlib import Path

import jax

from amd_jax.errors import ConfigError


def parse(text: str) -> tuple[int, int]:
    """First and last step of "START:STOP", counted from 1.

    Raises:
      ConfigError: it is not of this form.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 0 < int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"log.profile={text!r}: give the first and the last step to trace, counted from 1, as 11:15"
        )
    return int(found[1]), int(found[2])


class Profiler:
    """Traces the steps START to STOP of process 0, if they are made; without `text` it does nothing."""

    def __init__(self, text: str, workdir: Path) -> None:
        first, last = parse(text) if text and jax.process_index() == 0 else (0, 0)
        self._first, self._last, self._workdir = first, last, workdir
        self._running = False

    def before(self, step: int) -> None:
        """Called before a step, counted from 1."""
        if step == self._first:
            self._workdir.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._workdir))
            self._running = True

    def after(self, step: int, result: jax.Array) -> None:
        """Called after a step; waits for `result` of the last one, so that the trace has all of it."""
        if self._running and step >= self._last:
            result.block_until_ready()
            self.close()

    def close(self) -> None:
        """Ends a trace that is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
