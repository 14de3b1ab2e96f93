"""The loop: one compilation, exact continuation, signals, non-finite losses."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from amd_jax.config import flat
from amd_jax.errors import ConfigError, RunError
from amd_jax.evals import features
from amd_jax.evals.evaluators import make_evaluations
from amd_jax.steps.train_state import TrainState
from amd_jax.train import loop, setup
from amd_jax.train.checkpoint import Checkpoints, NotSavedError
from amd_jax.train.program import Program
from amd_jax.workdir import half_written
from tests.disks import enlarge, small_disk
from tests.runs import assert_same, losses, metrics, start, tiny


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    """These runs are about time, not about meshes: they use one of the eight devices.

    And a step is lowered once for all runs that differ in what they log, save and score.
    """
    device, lower = jax.devices()[:1], Program.lower
    lowered: dict[str, jax.stages.Lowered] = {}

    def once(self: Program) -> jax.stages.Lowered:
        beside = ("log", "checkpoint", "probe", "eval")
        key = repr(sorted((name, x) for name, x in flat(self.config).items() if not name.startswith(beside)))
        if key not in lowered:
            lowered[key] = lower(self)
        return lowered[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *args: device)
        patch.setattr(Program, "lower", once)
        yield


@pytest.fixture(scope="module")
def straight(one_device: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    """Twenty steps without a stop."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, loop.train(setup.prepare(tiny(log__pictures_every=20), str(workdir)))


def test_a_run_leaves_what_a_reader_looks_for(straight: tuple[Path, TrainState]) -> None:
    workdir, _ = straight
    lines = metrics(workdir)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert {"loss", "loss_rec", "loss_direct", "loss_gen", "lr", "grad_norm"} <= lines[-1].keys()
    assert {"examples_per_second", "data_wait_seconds", "data_skipped"} <= lines[-1].keys()
    assert (workdir / "config.json").is_file()
    assert list(workdir.glob("events.out.tfevents.*"))
    assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir()) == [10, 20]
    assert [p.name for p in (workdir / "pictures").iterdir()] == ["step_00000020.png"]


def test_the_loss_falls(straight: tuple[Path, TrainState]) -> None:
    lines = metrics(straight[0])
    assert np.mean([x["loss_rec"] for x in lines[-5:]]) < np.mean([x["loss_rec"] for x in lines[:5]])


def test_sigterm_saves_and_the_continued_run_is_bit_for_bit_the_straight_one(
    straight: tuple[Path, TrainState], tmp_path: Path
) -> None:
    def stop(step: int, state: TrainState) -> None:
        if step == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(loop.StoppedBySignal, match="SIGTERM at step 14"):
        loop.train(setup.prepare(tiny(), str(tmp_path)), hooks=(loop.Hook(stop),))
    run = setup.prepare(tiny(), str(tmp_path))
    assert run.start_step == 14
    state = loop.train(run)
    assert_same(state, straight[1])
    assert losses(tmp_path) == losses(straight[0])


def test_a_checkpoint_in_the_middle_continues_bit_for_bit(
    straight: tuple[Path, TrainState], tmp_path: Path
) -> None:
    """10 + restart + 10 = 20, with nothing of the first process but its files."""

    class Crash(Exception):
        pass

    def crash(step: int, state: TrainState) -> None:
        if step == 10:
            raise Crash

    with pytest.raises(Crash):
        loop.train(setup.prepare(tiny(), str(tmp_path)), hooks=(loop.Hook(crash),))
    state = loop.train(setup.prepare(tiny(), str(tmp_path)))
    assert_same(state, straight[1])
    assert losses(tmp_path) == losses(straight[0])


@pytest.mark.slow
def test_sigkill_at_a_random_moment_costs_only_the_steps_since_the_last_checkpoint(
    straight: tuple[Path, TrainState], tmp_path: Path
) -> None:
    arguments = [f"--workdir={tmp_path}", "--config.batch_size=8", "--config.log.every=1"]
    arguments += ["--config.checkpoint.every=1", "--config.log.pictures_every=0"]
    last = random.SystemRandom().randrange(2, 19)  # a checkpoint is being written at every step
    with start(*arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step") and f" {last}/20" in line:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    with start(*arguments) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert losses(tmp_path) == losses(straight[0]), f"killed after step {last}"


def test_every_step_uses_the_one_compiled_program(tmp_path: Path) -> None:
    """Ahead-of-time compilation cannot recompile; and nothing else compiles once the loop is under way."""
    compiled: list[str] = []
    run = setup.prepare(tiny(log__every=2), str(tmp_path))
    counts: list[int] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *args, **kwargs: (
            compiled.append(name) if name.endswith("backend_compile_duration") else None
        )
    )
    jax.jit(lambda x: x + len(compiled))(1.0)
    assert len(compiled) == 1  # the listener hears of compilations
    loop.train(run, hooks=(loop.Hook(lambda *_: counts.append(len(compiled))),))
    assert counts == counts[:1] * 20
    jax.monitoring.clear_event_listeners()


def test_a_non_finite_loss_names_step_parts_and_last_good_checkpoint(tmp_path: Path) -> None:
    run = setup.prepare(tiny(checkpoint__every=2), str(tmp_path))
    good = run.step

    def break_at_step_5(state, teacher, batch):
        new, values = good(state, teacher, batch)
        if len(metrics(tmp_path)) == 4:
            values = values | {"loss": values["loss"] * jax.device_put(np.float32("nan"))}
        return new, values

    run.step = break_at_step_5
    with pytest.raises(loop.NonFiniteError) as caught:
        loop.train(run)
    assert "step 5: loss not finite" in str(caught.value)
    assert "last good checkpoint: step 4" in str(caught.value)


def test_a_broken_state_is_never_saved(tmp_path: Path) -> None:
    """The step of a checkpoint is looked at before it is written, even between two log lines."""
    run = setup.prepare(tiny(log__every=100, checkpoint__every=3), str(tmp_path))
    good = run.step

    def broken(state, teacher, batch):
        new, values = good(state, teacher, batch)
        return new, values | {"grad_norm": values["loss"] * jax.device_put(np.float32("inf"))}

    run.step = broken
    with pytest.raises(loop.NonFiniteError, match="step 1: grad_norm not finite; no checkpoint was written"):
        loop.train(run)


def test_other_data_order_in_the_same_workdir_is_refused(straight: tuple[Path, TrainState]) -> None:
    with pytest.raises(ConfigError, match="it would not be the same run"):
        setup.prepare(tiny(seed=1), str(straight[0]))


def test_another_model_in_the_same_workdir_is_refused(straight: tuple[Path, TrainState]) -> None:
    with pytest.raises(RunError, match="does not fit this config"):
        setup.prepare(tiny(student__depth=3), str(straight[0]))


@pytest.mark.parametrize(("batch", "step", "scored"), [(5, 10, []), (22 + 5, 20, [10])])
def test_a_signal_in_an_evaluation_stops_within_a_batch_and_the_restart_makes_up_for_it(
    batch: int,
    step: int,
    scored: list[int],
    straight: tuple[Path, TrainState],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each evaluation encodes 22 batches; at the last step it is made up for as well, and once."""
    calls: list[int] = []
    make_encoder = features.make_encoder

    def interrupted(*args):
        encode = make_encoder(*args)

        def counting(params, x):
            calls.append(1)
            if len(calls) == batch:
                os.kill(os.getpid(), signal.SIGTERM)
            return encode(params, x)

        return counting

    def steps_with_scores() -> list[int]:
        return [line["step"] for line in metrics(tmp_path) if "knn_top1" in line]

    monkeypatch.setattr(features, "make_encoder", interrupted)
    for name in ("linear_probe", "knn"):  # how they are fitted is not asked here
        monkeypatch.setattr(features, name, lambda train, test, *args: float(train[0].mean()))
    config = tiny(probe__every_epochs=0.008, probe__examples=200, eval__batch_size=100)
    with pytest.raises(loop.StoppedBySignal, match=f"SIGTERM at step {step}; saved"):
        loop.train(setup.prepare(config, str(tmp_path)))
    assert len(calls) == batch
    assert steps_with_scores() == scored
    run = setup.prepare(config, str(tmp_path))
    assert run.start_step == step
    assert_same(loop.train(run), straight[1])
    assert losses(tmp_path) == losses(straight[0])
    assert steps_with_scores() == [10, 20]
    run.start_step = 20
    (probe,) = [e for e in make_evaluations(loop._setting(run)) if e.scores]
    assert not loop._is_unscored(run, probe)


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_when_there_is_room(
    straight: tuple[Path, TrainState], tmp_path: Path
) -> None:
    config = tiny(checkpoint__every=5)
    with small_disk(tmp_path / "disk", 2500) as disk:
        with pytest.raises(NotSavedError, match=r"step 20 could not be saved \(No space left on device\)"):
            loop.train(setup.prepare(config, str(disk)))
        folder = disk / "checkpoints"
        assert set(folder.iterdir()) - set(half_written(folder)) == {folder / "5"}
        enlarge(disk, 9000)
        run = setup.prepare(config, str(disk))
        assert run.start_step == 5
        assert_same(loop.train(run), straight[1])
        assert sorted(int(p.name) for p in (disk / "checkpoints").iterdir()) == [15, 20]


def test_a_stop_that_could_not_save_does_not_say_that_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, state: TrainState) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "_free", lambda self: 0)
    with pytest.raises(NotSavedError, match="SIGTERM at step 4; the checkpoint of step 4 could not be saved"):
        loop.train(setup.prepare(tiny(), str(tmp_path)), hooks=(loop.Hook(stop),))
    assert not (tmp_path / "checkpoints").exists()


def test_the_set_up_says_what_it_does_and_how_long_it_took(
    straight: tuple[Path, TrainState], capsys: pytest.CaptureFixture[str]
) -> None:
    setup.prepare(tiny(), str(straight[0]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" s)")]
    assert [line.split(":")[0] for line in lines] == ["data", "teacher", "state", "step"]
    assert f"going on from the checkpoint of step 20 in {straight[0]}" in lines[2]
