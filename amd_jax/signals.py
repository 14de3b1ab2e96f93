"""Stopping on a signal: noted at once, acted on between two steps or two batches of an evaluation."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from amd_jax import exits

Stop = Callable[[], bool]


class StoppedBySignal(RuntimeError):
    """The run was told to stop; its state is saved."""

    exit_code = exits.STOPPED


class Interrupted(Exception):
    """An evaluation was left between two batches; nothing of it counts."""


def never() -> bool:
    """Where nobody asks an evaluation to stop."""
    return False


class Signals:
    """Notes SIGTERM and SIGINT, so that the run can stop where its state is whole; a second one ends at once.

    In a distributed run jax's own notice of SIGTERM makes all processes stop at one place. It compares a
    number that all of them count up, and picks one that none has passed: the number of times that `asked` was
    called. So all processes must call it equally often, once after each step and before each batch of an
    evaluation.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._asked = 0
        self.seen = False  # the last answer of `asked`: what happens between two steps goes by one answer

    def _note(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
        if jax.process_count() > 1:  # Ctrl-C: jax's notice, which reaches all processes, listens to SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def installed(self) -> Iterator["Signals"]:
        """While entered, signals are noted."""
        wanted = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self._note) for number in wanted}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether to stop here; all processes give the same answer, and once True it stays True."""
        if jax.process_count() == 1:
            self.seen = self.received is not None
        else:
            self._asked += 1
            self.seen = self.seen or multihost_utils.reached_preemption_sync_point(self._asked)
        return self.seen

    @property
    def name(self) -> str:
        """What stopped the run, for messages."""
        return self.received.name if self.received else "a preemption notice"
