"""Work on many files: in processes, in order, with a line that tells how far it is."""

import collections
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from amd_jax import exits
from amd_jax.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # results that wait in line, for each process


class Progress:
    """`what 120/1,234, 35/s, 1 min left`, renewed in place on a terminal, and silent elsewhere."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._before = what, total, done, done
        self._start = self._shown = time.monotonic()
        self._visible = sys.stderr.isatty()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if self._visible and (now - self._shown > 0.2 or self._done == self._total):
            self._shown = now
            rate = (self._done - self._before) / max(now - self._start, 1e-3)
            left = (self._total - self._done) / rate / 60
            line = f"{self._what} {self._done:,}/{self._total:,}, {rate:.3g}/s, {left:.0f} min left"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leaves the line."""
        if self._visible:
            print(file=sys.stderr)


def cores() -> int:
    """How many processes are worth it: what this process may use, not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], jobs: int, progress: Progress
) -> Generator[Result, None, None]:
    """`work(item)` of every item, in their order, by `jobs` processes; 1: by this one.

    `work` is sent to each process once. Only a few results wait for a reader that is slower.

    Raises:
      DataError: a process died, as one does that is out of memory.
    """
    if jobs <= 1:
        for item in items:
            yield work(item)
            progress.step()
        return
    # A fork would copy the locks of threads that do not exist in it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(work,))
    waiting: collections.deque[Future[Any]] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(_do, item))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
                progress.step()
        while waiting:
            yield waiting.popleft().result()
            progress.step()
    except BrokenProcessPool as error:
        raise DataError(f"a process of --jobs={jobs} was killed; if memory was short, lower it") from error
    finally:
        pool.shutdown(cancel_futures=True)


def results(what: str, work: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> list[Result]:
    """`work(item)` of every item as `in_order` has it, with a line of progress that begins with `what`."""
    progress = Progress(what, len(items))
    done = list(in_order(work, items, jobs, progress))
    progress.end()
    return done


_work: Callable[[Any], Any]


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for work of a parent that was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(exits.FAILED)


def _do(item: Any) -> Any:
    return _work(item)
