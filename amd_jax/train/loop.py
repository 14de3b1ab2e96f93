"""The only training loop: step, then whatever is due of a list of hooks, until the end or a signal."""

import contextlib
import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from amd_jax import exits, hardware
from amd_jax.buckets import is_url
from amd_jax.data import pipeline
from amd_jax.errors import ConfigError
from amd_jax.evals.evaluation import Evaluation, Setting
from amd_jax.evals.evaluators import make_evaluations
from amd_jax.processes import agreed
from amd_jax.sharding import global_batch
from amd_jax.signals import Interrupted, Signals, StoppedBySignal
from amd_jax.steps.train_state import TrainState
from amd_jax.train import setup, throughput
from amd_jax.train.checkpoint import NotSavedError
from amd_jax.train.profiling import Profiler
from amd_jax.train.reporter import Reporter
from amd_jax.workdir import load_metrics


class NonFiniteError(RuntimeError):
    """The loss or one of its parts is no longer a finite number."""

    exit_code = exits.NON_FINITE


@dataclasses.dataclass(frozen=True)
class Hook:
    """Something to do between steps, and always after the last one.

    Attributes:
      call: takes the step and the state after it.
      every: steps between two calls; 0: only after the last step.
      at_stop: whether to call it as well where the run is told to stop.
    """

    call: Callable[[int, TrainState], None]
    every: int = 1
    at_stop: bool = False

    def due(self, step: int, last: bool, stop: bool) -> bool:
        """Whether to call it after `step`."""
        return last or (stop and self.at_stop) or (self.every > 0 and step % self.every == 0)


class Pending:
    """Metrics of steps that the device may not have finished; fetched together, once per interval."""

    def __init__(self, ahead: int) -> None:
        self._steps: list[tuple[int, dict[str, jax.Array]]] = []
        self._checked: list[dict[str, Any]] = []
        self._in_flight: deque[jax.Array] = deque()
        self._ahead = ahead

    def add(self, step: int, values: dict[str, jax.Array]) -> None:
        """Notes a dispatched step, and waits while more than `ahead` steps are under way."""
        self._steps.append((step, values))
        self._in_flight.append(values["loss"])
        while len(self._in_flight) > self._ahead:
            self._in_flight.popleft().block_until_ready()

    def check(self) -> None:
        """Waits for the noted steps.

        Raises:
          NonFiniteError: names the first bad step and the metrics that are not finite there.
        """
        steps, self._steps = self._steps, []
        values = jax.device_get([v for _, v in steps])
        for (step, _), v in zip(steps, values, strict=True):
            if bad := [name for name, x in v.items() if not np.isfinite(x)]:
                raise NonFiniteError(f"step {step}: {', '.join(bad)} not finite")
        self._checked += values

    def means(self) -> dict[str, float]:
        """Checks, and returns the means over the steps since the last call (lr: its last value)."""
        self.check()
        values, self._checked = self._checked, []
        if not values:
            return {}
        means = {name: float(np.mean([v[name] for v in values])) for name in values[0]}
        return means | {"lr": float(values[-1]["lr"])}


def train(run: setup.Run, hooks: tuple[Hook, ...] = ()) -> TrainState:
    """Run until the last step. Logging, evaluations and checkpoints are hooks; `hooks` come after these.

    A stop waits for what cannot be left once begun: a step, a picture (one forward pass of 8 examples) and
    the fit of a probe (see `evals.features.make_prober`).

    Raises:
      NonFiniteError: a loss, a part of it or the gradient norm is not finite.
      StoppedBySignal: SIGTERM or SIGINT; the state is saved.
      NotSavedError: the last state could not be saved.
      DataError: more unreadable examples than data.max_corrupt.
    """
    assert run.step is not None, "eval.only: use evaluate_only"
    training = _Training(run)
    between = [
        Hook(training.log, run.config.log.every, at_stop=True),
        *training.evaluators,
        Hook(training.save, run.config.checkpoint.every, at_stop=True),
        *hooks,
    ]
    with training.opened():
        training.catch_up()
        state = _steps(training, run.step, between)
        run.checkpoints.wait()
        if run.checkpoints.unsaved:
            raise _not_saved(run)
    return state


def _steps(training: "_Training", compiled: Callable[..., Any], between: list[Hook]) -> TrainState:
    """Every step that is left, and after each what is due."""
    run, profiler, signals = training.run, training.profiler, training.signals
    inputs, mesh, last_step = run.program.task.inputs, run.program.mesh, run.program.total_steps
    state, step = run.state, run.start_step
    while step < last_step:
        profiler.before(step + 1)
        with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
            with training.clock.waiting():
                batch = next(training.stream)
            on_device = global_batch({name: batch[name] for name in inputs}, mesh)
            state, values = compiled(state, run.teacher, on_device)
        step += 1
        training.pending.add(step, values)
        profiler.after(step, values["loss"])
        last = step == last_step
        signals.asked()
        for hook in between:
            if hook.due(step, last, signals.seen):
                hook.call(step, state)
        if signals.seen and (training.owed or not last):
            raise _stopped(run, signals, step)
    return state


class _Training:
    """What the hooks of a run share while it trains.

    Attributes:
      owed: an evaluation that is due has not been made, because of a signal.
    """

    def __init__(self, run: setup.Run) -> None:
        self.run = run
        self.reporter = Reporter(run)
        self.reporter.introduce()
        self.evaluations = make_evaluations(_setting(run))
        self.evaluators = [Hook(functools.partial(self._evaluate, e), e.every) for e in self.evaluations]
        self.profiler = Profiler(run.config.log.profile, self.reporter.folder)
        self.clock = _clock(run)
        several_on_cpu = jax.default_backend() == "cpu" and jax.local_device_count() > 1
        self.pending = Pending(ahead=0 if several_on_cpu else 2)
        self.signals = Signals()
        self.owed = False
        self.stream = pipeline.train_stream(
            run.config,
            run.source,
            start_step=run.start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Signals are heeded inside; at the end everything is closed, whatever happened."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.reporter.close)
            stack.callback(self.run.checkpoints.close)
            stack.callback(self.profiler.close)
            stack.enter_context(self.stream)
            stack.enter_context(self.signals.installed())
            stack.enter_context(jax.transfer_guard("disallow"))
            yield

    def log(self, step: int, state: TrainState) -> None:
        """The means of the steps since the last time."""
        del state
        with _naming_last_good(self.run):
            scalars = self.pending.means()
        scalars |= self.clock.interval(step) | {"data_skipped": self.stream.skipped}
        done = step - self.run.start_step
        left = self.run.program.total_steps - step
        self.reporter.scalars(step, scalars, (time.perf_counter() - self._began) / max(done, 1) * left)

    def save(self, step: int, state: TrainState) -> None:
        """A checkpoint; a run that goes on from it finds all that was reported until then."""
        self._check()
        self.reporter.upload()
        self.run.checkpoints.save(state, step, self.run.position(step))

    def catch_up(self) -> None:
        """Makes the evaluations that are due at the step the run goes on from and that a signal prevented."""
        step, last = self.run.start_step, self.run.start_step == self.run.program.total_steps
        for evaluation, hook in zip(self.evaluations, self.evaluators, strict=True):
            due = step and evaluation.scores is not None and hook.due(step, last, False)
            if due and _is_unscored(self.run, evaluation):
                hook.call(step, self.run.state)
        if self.owed:
            raise _stopped(self.run, self.signals, step)

    def _evaluate(self, evaluation: Evaluation, step: int, state: TrainState) -> None:
        with self.clock.aside():
            if evaluation.draw is not None:
                self.reporter.picture(step, evaluation.draw(state))
            if evaluation.scores is None:
                return
            if self.signals.seen:
                self.owed = True
                return
            self._check()
            try:
                scores = evaluation.scores(state, self.signals.asked)
            except Interrupted:  # nothing of it is written; the next start makes up for it
                self.owed = True
            else:
                self.reporter.scalars(step, scores)

    def _check(self) -> None:
        with _naming_last_good(self.run):
            self.pending.check()  # never score or write a state that is already broken


def _setting(run: setup.Run) -> Setting:
    p = run.program
    return Setting(p.config, p.task, p.mesh, run.source, run.eval_source, p.steps_per_epoch)


def _clock(run: setup.Run) -> throughput.Clock:
    program = run.program
    peak = hardware.peak_flops(program.mesh.devices.flat[0].device_kind, program.config.model.dtype)
    return throughput.Clock(
        run.config.batch_size, program.flops_per_step, peak and peak * program.mesh.size, step=run.start_step
    )


def _stopped(run: setup.Run, signals: Signals, step: int) -> Exception:
    run.checkpoints.wait()
    if run.checkpoints.unsaved:
        return _not_saved(run, f"{signals.name} at step {step}; ")
    return StoppedBySignal(f"{signals.name} at step {step}; saved, and the same command goes on from there")


def _not_saved(run: setup.Run, before: str = "") -> NotSavedError:
    last = run.checkpoints.latest()
    where = f"goes on from step {last}" if last else "starts again, as there is no checkpoint yet"
    first = "make the bucket writable" if is_url(run.workdir) else "make room"
    return NotSavedError(f"{before}{run.checkpoints.unsaved}; {first}, and the same command {where}")


def _is_unscored(run: setup.Run, evaluation: Evaluation) -> bool:
    """Whether the step that the run goes on from lacks these scores: the evaluation was interrupted."""

    def scored() -> bool:
        with contextlib.suppress(OSError, ValueError):  # metrics that a full disk did not take
            lines = load_metrics(str(run.workdir))
            return any(line["step"] == run.start_step and evaluation.mark in line for line in lines)
        return False

    return not agreed(int(jax.process_index() == 0 and scored()))


def evaluate_only(run: setup.Run) -> dict[str, float]:
    """Score the newest checkpoint (or the weights the run would start from), print and return it.

    Raises:
      StoppedBySignal: SIGTERM or SIGINT; there are no scores.
      ConfigError: there is nothing to score, or nothing to score by.
    """
    scorers = [e.scores for e in make_evaluations(_setting(run)) if e.scores is not None]
    if not scorers:
        raise ConfigError(
            f"eval.only: method={run.config.method!r} has nothing to evaluate; set probe.every_epochs above "
            "0, on data with labels"
        )
    if not (run.start_step or run.config.student.weights):
        raise ConfigError(f"eval.only: {run.workdir} has no checkpoint, and student.weights is not set")
    scores: dict[str, float] = {}
    with Signals().installed() as signals:
        try:
            for scorer in scorers:
                scores |= scorer(run.state, signals.asked)
        except Interrupted:
            raise StoppedBySignal(f"{signals.name} during the evaluation; nothing was scored") from None
    run.checkpoints.close()
    if jax.process_index() == 0:
        print(throughput.progress_line(run.start_step, run.program.total_steps, scores))
    return scores


@contextlib.contextmanager
def _naming_last_good(run: setup.Run) -> Iterator[None]:
    try:
        yield
    except NonFiniteError as error:
        run.checkpoints.wait()
        good = run.checkpoints.latest()
        where = f"last good checkpoint: step {good} in {run.workdir}" if good else "no checkpoint was written"
        raise NonFiniteError(f"{error}; {where}") from None
