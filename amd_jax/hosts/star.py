"""The processes of a run hold on to each other: each has a connection to process 0, and process 0 to all.

A process that is killed is noticed when its connection closes; one whose machine or network is gone, when
nothing has been heard of it for a while. Then all end with the same line and exit code, wherever they are: in
a step, which on accelerators would wait forever, an evaluation or a save.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from amd_jax import exits
from amd_jax.hosts.wire import Gone, Wire

FAREWELL = 3.0  # seconds that process 0 waits for the others to go first
MINUTES = 20  # … that processes which end together wait for the slowest


class Star:
    """This process and its connections.

    Attributes:
      index: of this process.
      hosts: names of the machines, by process.
    """

    def __init__(
        self,
        index: int,
        hosts: list[str],
        wires: dict[int, Wire],
        patience: float,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        """Listens from now on.

        Args:
          index: of this process.
          hosts: names of the machines, by process.
          wires: by process: process 0's to all others, or the one to process 0.
          patience: seconds without a sign of life after which a process counts as gone.
          leave: ends this process with an exit code.
        """
        self.index, self.hosts = index, hosts
        self._wires, self._leave = wires, leave
        self._heard: dict[int, queue.Queue[Any]] = {peer: queue.Queue() for peer in wires}
        self._at_end: set[int] = set()  # who may go without being missed
        self._closed = threading.Event()
        self._ending, self._over = threading.Lock(), False
        self._listeners = [
            threading.Thread(target=self._listen, args=pair, daemon=True) for pair in wires.items()
        ]
        for wire in wires.values():
            wire.wait(patience)
        beats = threading.Thread(target=self._beat, args=(min(5.0, patience / 10),), daemon=True)
        for thread in (*self._listeners, beats):
            thread.start()

    def ask(self, word: Any, judge: Callable[[list[Any]], Any]) -> Any:
        """What process 0's `judge` makes of the words of all processes, in each of them; words are JSON."""
        if self.index:
            self._send(say=word)
            return self._heard[0].get()
        answer = judge([word, *(self._heard[peer].get() for peer in sorted(self._wires))])
        self._send(say=answer)
        return answer

    def name(self, process: int) -> str:
        """For messages."""
        return f"process {process} ({self.hosts[process]})"

    def end_together(self) -> None:
        """Returns when all processes have come to their end; from then on none is missed."""
        if self.index:
            self._send(at_end=True)
            self._heard[0].get()
        else:
            for peer in sorted(self._wires):
                try:
                    self._heard[peer].get(timeout=MINUTES * 60)
                except queue.Empty:
                    line = f"{self.name(peer)} goes on {MINUTES} minutes after the others ended"
                    self.end_alone(exits.LOST, line)
            self._send(at_end=True)
        self._closed.set()

    def end_alone(self, code: int, line: str) -> None:
        """Says why, and ends this process and all others, which say it too."""
        if self.index:
            self._finish(code, line, end=[code, line])
        else:
            self._finish(code, line, over=self._passed_on(0, code, line))

    def go(self, code: int) -> None:
        """Ends this process; process 0 lets the others go first, which jax aborts when they miss it."""
        if not self.index:
            deadline = time.monotonic() + FAREWELL
            for thread in self._listeners:
                if thread is not threading.current_thread():
                    thread.join(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        self._leave(code)

    def _finish(self, code: int, line: str, **told: Any) -> None:
        """The first end is the one that counts; who comes second waits here for the process to end."""
        with self._ending:
            if not self._over:
                self._over = True
                self._closed.set()
                self._send(**told)
                exits.say(code, line)
                self.go(code)

    def _send(self, **message: Any) -> None:
        for wire in self._wires.values():
            wire.send(**message)

    def _beat(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            self._send(beat=True)

    def _listen(self, peer: int, wire: Wire) -> None:
        try:
            while not self._over:
                self._heed(peer, wire.receive())
        except Gone as gone:
            if not (peer in self._at_end or self._over):
                line = f"{self.name(peer)} is gone ({gone}); {exits.GOES_ON}"
                self._finish(exits.LOST, line, over=[exits.LOST, line])

    def _heed(self, peer: int, message: dict[str, Any]) -> None:
        if "say" in message:
            self._heard[peer].put(message["say"])
        elif "at_end" in message:
            self._at_end.add(peer)
            self._heard[peer].put(None)
        elif self._over:
            return
        elif "end" in message:
            code, line = self._passed_on(peer, *message["end"])
            self._finish(code, line, over=[code, line])
        elif "over" in message:
            self._finish(*message["over"])

    def _passed_on(self, peer: int, code: int, line: str) -> tuple[int, str]:
        """How the others end where `peer` ends so."""
        return (exits.LOST if code == exits.FAILED else code), f"{self.name(peer)} ended: {line}"


current: Star | None = None  # of this process; None where it is the only one of its run
