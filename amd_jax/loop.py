"""The only training loop: step, log, draw, save, resume, and stop on a signal or a non-finite loss."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview

from amd_jax import evaluate, exits, metrics, probe, setup, throughput, visualize
from amd_jax.checkpoint import NotSavedError
from amd_jax.config import ConfigError, flat
from amd_jax.data import pipeline
from amd_jax.metrics import make_writer
from amd_jax.models.build import compute_dtype
from amd_jax.processes import agreed
from amd_jax.sharding import global_batch, replicated
from amd_jax.signals import Interrupted, Signals, StoppedBySignal, never
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train_state import TrainState

PICTURES = 8  # examples drawn in a picture
Hook = Callable[[int, TrainState], None]


class NonFiniteError(RuntimeError):
    """The loss or one of its parts is no longer a finite number."""

    exit_code = exits.NON_FINITE


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
    """Run until the last step; `hooks` are called with the step and the state after every step.

    A stop waits for what cannot be left once begun: a step, a picture (one forward pass of 8 examples) and
    the fit of a probe (see `probe.make_prober`).

    Raises:
      NonFiniteError: a loss, a part of it or the gradient norm is not finite.
      StoppedBySignal: SIGTERM or SIGINT; the state is saved.
      NotSavedError: the last state could not be saved.
      ConfigError: more unreadable examples than data.max_corrupt.
    """
    config, chief = run.config, jax.process_index() == 0
    assert run.step is not None, "eval.only: use evaluate_only"
    writer = make_writer(str(run.workdir), resume_step=run.start_step) if chief else None
    if chief:
        _introduce(run, writer)
    painter, evaluator = _painter(run), make_evaluator(run)
    peak = throughput.peak_flops(jax.devices()[0].device_kind, str(compute_dtype(config)))
    clock = throughput.Clock(
        config.batch_size,
        run.flops_per_step,
        peak and peak * jax.device_count(),
        step=run.start_step,
    )
    several_on_cpu = jax.default_backend() == "cpu" and jax.local_device_count() > 1
    pending = Pending(ahead=0 if several_on_cpu else 2)
    state, step = run.state, run.start_step
    began = time.perf_counter()

    def log() -> None:
        with _naming_last_good(run):
            scalars = pending.means()
        scalars |= clock.interval(step) | {"data_skipped": stream.skipped}
        done = step - run.start_step
        eta = (time.perf_counter() - began) / max(done, 1) * (run.total_steps - step)
        if writer is not None:
            writer.write_scalars(step, scalars)
            print(throughput.progress_line(step, run.total_steps, scalars, eta), flush=True)

    def check() -> None:
        with _naming_last_good(run):
            pending.check()  # never score or write a state that is already broken

    def is_score_due() -> bool:
        return evaluator is not None and (step % run.eval_every == 0 or step == run.total_steps)

    def score() -> bool:
        """False: interrupted, and nothing of it is written; the next start makes up for it."""
        assert evaluator is not None
        check()
        try:
            scalars = evaluator(state, signals.asked)
        except Interrupted:
            return False
        if writer is not None:
            writer.write_scalars(step, scalars)
            print(throughput.progress_line(step, run.total_steps, scalars), flush=True)
        return True

    def stopped() -> StoppedBySignal:
        run.checkpoints.wait()
        if run.checkpoints.unsaved:
            raise _not_saved(run, f"{signals.name} at step {step}; ")
        return StoppedBySignal(
            f"{signals.name} at step {step}; saved, and the same command goes on from there"
        )

    def save() -> None:
        check()
        run.checkpoints.save(state, step, run.position(step))

    stream = pipeline.train_stream(
        config,
        run.source,
        start_step=run.start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with contextlib.ExitStack() as stack:
        if writer is not None:
            stack.callback(writer.close)
        stack.callback(run.checkpoints.close)
        stack.enter_context(stream)
        signals = stack.enter_context(Signals().installed())
        stack.enter_context(jax.transfer_guard("disallow"))
        if step and is_score_due() and _is_unscored(run) and not score():
            raise stopped()
        while step < run.total_steps:
            with clock.waiting():
                batch = next(stream)
            on_device = global_batch({name: batch[name] for name in run.task.inputs}, run.mesh)
            state, values = run.step(state, run.teacher, on_device)
            step += 1
            pending.add(step, values)
            last = step == run.total_steps
            stop = signals.asked()
            if step % config.log.every == 0 or last or stop:
                log()
            if painter and (step % config.log.pictures_every == 0 or last):
                with clock.aside():
                    picture = painter(state.params)
                if writer is not None:
                    _write_picture(run, writer, step, picture)
            due = is_score_due()
            if due and not stop:
                with clock.aside():
                    stop = due = not score()
            if step % config.checkpoint.every == 0 or last or stop:
                save()
            for hook in hooks:
                hook(step, state)
            if stop and (due or not last):
                raise stopped()
        run.checkpoints.wait()
        if run.checkpoints.unsaved:
            raise _not_saved(run)
    return state


def _not_saved(run: setup.Run, before: str = "") -> NotSavedError:
    last = run.checkpoints.latest()
    where = f"goes on from step {last}" if last else "starts again, as there is no checkpoint yet"
    return NotSavedError(f"{before}{run.checkpoints.unsaved}; make room, and the same command {where}")


def _is_unscored(run: setup.Run) -> bool:
    """Whether the step that the run goes on from has no scores: its evaluation was interrupted."""

    def scored() -> bool:
        with contextlib.suppress(OSError, ValueError):  # metrics that a full disk did not take
            lines = metrics.read(str(run.workdir))
            return any(line["step"] == run.start_step and "loss" not in line for line in lines)
        return False

    return not agreed(int(jax.process_index() == 0 and scored()))


def evaluate_only(run: setup.Run) -> dict[str, float]:
    """Score the newest checkpoint (or the weights the run would start from), print and return it.

    Raises:
      StoppedBySignal: SIGTERM or SIGINT; there are no scores.
      ConfigError: there is nothing to score, or nothing to score by.
    """
    evaluator = make_evaluator(run)
    if evaluator is None:
        raise ConfigError(
            f"eval.only: method={run.config.method!r} has nothing to evaluate; set probe.every_epochs above 0"
        )
    if not (run.start_step or run.config.student.weights):
        raise ConfigError(f"eval.only: {run.workdir} has no checkpoint, and student.weights is not set")
    with Signals().installed() as signals:
        try:
            scores = evaluator(run.state, signals.asked)
        except Interrupted:
            raise StoppedBySignal(f"{signals.name} during the evaluation; nothing was scored") from None
    run.checkpoints.close()
    if jax.process_index() == 0:
        print(throughput.progress_line(run.start_step, run.total_steps, scores))
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


def _introduce(run: setup.Run, writer: Any) -> None:
    """What a reader of the log wants to know first."""
    config = run.config
    overview = parameter_overview.get_parameter_overview(run.state.params, include_stats=False)
    writer.write_texts(run.start_step, {"parameters": f"```\n{overview}\n```"})
    writer.write_hparams(flat(config))
    print(overview)
    count = parameter_overview.count_parameters(run.state.params)
    mesh = ", ".join(f"{name}={size}" for name, size in run.mesh.shape.items())
    memory = f", {run.peak_memory / 2**30:.2f} GiB a device" if run.peak_memory else ""
    print(
        f"{config.method}: {count / 1e6:.1f} M trained parameters, {len(run.source)} examples, "
        f"{run.total_steps} steps of {config.batch_size} on {jax.device_count()} "
        f"{jax.devices()[0].device_kind} ({mesh}), {run.flops_per_step / 1e9:.1f} GFLOP a step{memory}"
    )
    if run.start_step >= run.total_steps:
        print(f"{run.workdir} is already at step {run.start_step}: nothing to do")


def make_evaluator(run: setup.Run) -> evaluate.Evaluator | None:
    """Accuracy on the evaluation split: of the model, or of a probe of the encoder; None without either."""
    if isinstance(run.task, Finetuning):
        accuracy = evaluate.make_evaluator(run.config, run.task, run.eval_source, run.mesh)
        return lambda state, stop=never: accuracy(state.ema or state.params, stop)
    if not run.config.probe.every_epochs:
        return None
    prober = probe.make_prober(run.config, run.source, run.eval_source, run.mesh)
    return lambda state, stop=never: prober(state.params["encoder"], stop)


def _painter(run: setup.Run) -> Callable[[Any], np.ndarray] | None:
    """Draws the same evaluation examples every time; None where nothing is reconstructed."""
    if not (isinstance(run.task, Pretraining) and run.config.log.pictures_every):
        return None
    count = min(PICTURES, len(run.eval_source))
    batches = pipeline.eval_batches(
        run.config, run.eval_source, batch_size=count, process_index=0, process_count=1
    )
    pixels = next(iter(batches))["pixels"]
    return visualize.make_painter(run.task, pixels, run.config.seed, replicated(run.mesh))


def _write_picture(run: setup.Run, writer: Any, step: int, picture: np.ndarray) -> None:
    path = run.workdir / "pictures" / f"step_{step:08d}.png"
    try:
        visualize.save_png(path, picture)
    except OSError as error:  # a full disk costs a picture, not the run
        logging.warning("%s: not written (%s)", path, error)
    writer.write_images(step, {"reconstruction": picture[None]})
