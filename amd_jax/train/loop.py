"""The only training loop: step, then whatever is due of a list of hooks, until the end or a signal."""

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from amd_jax import exits, hardware
from amd_jax.data import pipeline
from amd_jax.errors import ConfigError
from amd_jax.evals.evaluation import Evaluation, Setting
from amd_jax.evals.evaluators import make_evaluations
from amd_jax.processes import agreed
from amd_jax.sharding import global_batch
from amd_jax.signals import Interrupted, Signals, StoppedBySignal
from amd_jax.steps.train_state import TrainState
from amd_jax.train import metrics, setup, throughput
from amd_jax.train.checkpoint import NotSavedError
from amd_jax.train.profiling import Profiler
from amd_jax.train.reporter import Reporter


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
      ConfigError: more unreadable examples than data.max_corrupt.
    """
    assert run.step is not None, "eval.only: use evaluate_only"
    config, program = run.config, run.program
    reporter = Reporter(run)
    reporter.introduce()
    evaluations = make_evaluations(_setting(run))
    profiler = Profiler(config.log.profile, run.workdir)
    clock = _clock(run)
    several_on_cpu = jax.default_backend() == "cpu" and jax.local_device_count() > 1
    pending = Pending(ahead=0 if several_on_cpu else 2)
    state, step = run.state, run.start_step
    began = time.perf_counter()
    signals = Signals()
    owed = False  # an evaluation that is due has not been made, because of a signal

    def log(step: int, state: TrainState) -> None:
        with _naming_last_good(run):
            scalars = pending.means()
        scalars |= clock.interval(step) | {"data_skipped": stream.skipped}
        done = step - run.start_step
        eta = (time.perf_counter() - began) / max(done, 1) * (program.total_steps - step)
        reporter.scalars(step, scalars, eta)

    def look(evaluation: Evaluation, step: int, state: TrainState) -> None:
        nonlocal owed
        if evaluation.draw is not None:
            reporter.picture(step, evaluation.draw(state))
        if evaluation.scores is None:
            return
        if signals.seen:
            owed = True
            return
        check()
        try:
            scores = evaluation.scores(state, signals.asked)
        except Interrupted:  # nothing of it is written; the next start makes up for it
            owed = True
        else:
            reporter.scalars(step, scores)

    def evaluate(evaluation: Evaluation) -> Hook:
        def call(step: int, state: TrainState) -> None:
            with clock.aside():
                look(evaluation, step, state)

        return Hook(call, evaluation.every)

    def check() -> None:
        with _naming_last_good(run):
            pending.check()  # never score or write a state that is already broken

    def save(step: int, state: TrainState) -> None:
        check()
        run.checkpoints.save(state, step, run.position(step))

    evaluators = [evaluate(evaluation) for evaluation in evaluations]
    between = [
        Hook(log, config.log.every, at_stop=True),
        *evaluators,
        Hook(save, config.checkpoint.every, at_stop=True),
        *hooks,
    ]
    stream = pipeline.train_stream(
        config,
        run.source,
        start_step=run.start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with contextlib.ExitStack() as stack:
        stack.callback(reporter.close)
        stack.callback(run.checkpoints.close)
        stack.callback(profiler.close)
        stack.enter_context(stream)
        stack.enter_context(signals.installed())
        stack.enter_context(jax.transfer_guard("disallow"))
        due = [
            (evaluation, hook)
            for evaluation, hook in zip(evaluations, evaluators, strict=True)
            if evaluation.scores is not None and hook.due(step, step == program.total_steps, False)
        ]
        if step and due:
            for evaluation, hook in due:
                if _is_unscored(run, evaluation):
                    hook.call(step, state)
            if owed:
                raise _stopped(run, signals, step)
        while step < program.total_steps:
            profiler.before(step + 1)
            with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                with clock.waiting():
                    batch = next(stream)
                on_device = global_batch({name: batch[name] for name in program.task.inputs}, program.mesh)
                state, values = run.step(state, run.teacher, on_device)
            step += 1
            pending.add(step, values)
            profiler.after(step, values["loss"])
            last = step == program.total_steps
            signals.asked()
            for hook in between:
                if hook.due(step, last, signals.seen):
                    hook.call(step, state)
            if signals.seen and (owed or not last):
                raise _stopped(run, signals, step)
        run.checkpoints.wait()
        if run.checkpoints.unsaved:
            raise _not_saved(run)
    return state


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
    return NotSavedError(f"{before}{run.checkpoints.unsaved}; make room, and the same command {where}")


def _is_unscored(run: setup.Run, evaluation: Evaluation) -> bool:
    """Whether the step that the run goes on from lacks these scores: the evaluation was interrupted."""

    def scored() -> bool:
        with contextlib.suppress(OSError, ValueError):  # metrics that a full disk did not take
            lines = metrics.read(str(run.workdir))
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
            f"eval.only: method={run.config.method!r} has nothing to evaluate; set probe.every_epochs above 0"
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
