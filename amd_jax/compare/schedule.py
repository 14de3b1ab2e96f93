"""Runs the cells of a comparison in a few processes, each as soon as those that it needs are done."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from amd_jax import compilation_cache, exits
from amd_jax.compare import cell as cell_run
from amd_jax.compare.cell import Result
from amd_jax.compare.grid import Cell
from amd_jax.errors import ConfigError
from amd_jax.train.loop import NonFiniteError, StoppedBySignal

_stop: Any = None  # in a worker: the event by which the parent ends its run


def run_all(
    cells: Mapping[str, Cell],
    workdir: Path,
    jobs: int,
    finished: Callable[[str, float, dict[str, Result]], None],
) -> dict[str, Result]:
    """Runs what has no result yet, `jobs` at a time, and returns all results.

    The cores are shared out among the processes: several small runs on a core each are faster than one after
    the other on all of them. A process keeps the data in memory from one run to the next.

    Args:
      cells: by name, each after those that it needs.
      workdir: where each has its folder.
      jobs: processes; 0: nothing is run.
      finished: called after each cell with its name, the seconds it took and all results so far.

    Raises:
      ConfigError: a result is of another plan, a run cannot be started, or a process was killed.
      NonFiniteError: runs diverged; everything that does not need them is finished.
      StoppedBySignal: SIGTERM or SIGINT; every run under way has saved.
    """
    results = {
        name: result for name, cell in cells.items() if (result := cell_run.load(cell, workdir)) is not None
    }
    waiting = {name: cell for name, cell in cells.items() if name not in results}
    if not (waiting and jobs):
        return results
    context = multiprocessing.get_context("spawn")
    stop, cores = context.Event(), context.Queue()
    for part in _shared_cores(jobs):
        cores.put(part)
    began: dict[concurrent.futures.Future[Result], tuple[str, float]] = {}
    diverged: dict[str, NonFiniteError] = {}
    with (
        _stopping(stop),
        concurrent.futures.ProcessPoolExecutor(jobs, context, _start_worker, (stop, cores)) as pool,
    ):
        try:
            while waiting or began:
                ready = [name for name, cell in waiting.items() if _are_done(cell.needs, results)]
                for name in ready[: jobs - len(began)]:
                    if not stop.is_set():
                        future = pool.submit(_work, waiting.pop(name), workdir)
                        began[future] = name, time.monotonic()
                if not began:
                    break
                done, _ = concurrent.futures.wait(began, return_when="FIRST_COMPLETED")
                for future in done:
                    name, since = began.pop(future)
                    try:
                        results[name] = future.result()
                    except NonFiniteError as error:
                        diverged[name] = error
                    else:
                        finished(name, time.monotonic() - since, results)
        except concurrent.futures.process.BrokenProcessPool as error:
            if stop.is_set():
                raise StoppedBySignal("every process has ended; the same command goes on") from error
            raise ConfigError(
                "a process was killed, perhaps for want of memory: give fewer --jobs; "
                "the same command goes on with what is finished"
            ) from error
        finally:
            stop.set()  # whatever else is under way saves and ends
    if diverged:
        first, reason = next(iter(diverged.items()))
        raise NonFiniteError(f"{len(diverged)} of {len(cells)} cells diverged, the first {first}: {reason}")
    if waiting:
        raise StoppedBySignal(f"{len(waiting)} of {len(cells)} cells are left; the same command goes on")
    return results


def _are_done(needs: Iterable[Cell], results: Mapping[str, Result]) -> bool:
    return all(cell.name in results for cell in needs)


def _shared_cores(jobs: int) -> list[list[int]]:
    """A set of cores for each process; all of them for each where there are too few, or no way to tell."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(jobs)]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs:
        return [cores for _ in range(jobs)]
    return [cores[n::jobs] for n in range(jobs)]


@contextlib.contextmanager
def _stopping(stop: Any) -> Iterator[None]:
    """While entered, the first SIGTERM or SIGINT sets `stop`; a second one ends at once."""

    def note(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_worker(stop: Any, cores: Any) -> None:
    """Before anything is computed: jax starts as many threads as it may use cores then."""
    global _stop
    _stop = stop
    if mine := cores.get():
        os.sched_setaffinity(0, mine)
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides; a run listens for itself
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.set_verbosity(logging.WARNING)
    compilation_cache.enable()  # fine-tuning of one seed is one program, whatever it starts from


def _end_with_parent() -> None:
    """A worker that outlived its parent would write where the next comparison does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(exits.FAILED)


def _work(cell: Cell, workdir: Path) -> Result:
    def stop() -> None:
        # The run answers a first signal by saving; from then on another would end it at once.
        if _stop.is_set() and callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)

    if _stop.is_set():
        raise StoppedBySignal("before it began")
    return cell_run.run(cell, workdir, stop)
