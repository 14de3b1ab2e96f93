"""Two processes over loopback train as one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from amd_jax.workdir import load_params
from tests import QUICK, together
from tests.disks import enlarge, small_disk
from tests.ports import free_port
from tests.runs import ROOT, assert_close, assert_same, losses, metrics, start


@pytest.mark.slow
def test_two_processes_compute_what_one_computes_and_only_one_writes(tmp_path: Path) -> None:
    common = ["--config.batch_size=8", "--config.log.every=1", "--config.log.pictures_every=0"]
    common += ["--config.data.flip=True", "--config.checkpoint.every=10"]
    common += ["--config.probe.every_epochs=1", "--config.probe.examples=200"]  # one, at the end
    with start(f"--workdir={tmp_path / 'one'}", *common) as process:
        assert process.wait() == 0

    port = free_port()
    together = [f"--workdir={tmp_path / 'two'}", *common, "--distributed", f"--coordinator=127.0.0.1:{port}"]
    processes = [start(*together, "--processes=2", f"--process={i}") for i in range(2)]
    outputs = ended(processes, [0, 0])
    assert "step" in outputs[0][0]
    assert "step" not in outputs[1][0]

    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    for step in one:
        np.testing.assert_allclose(one[step], two[step], rtol=1e-4)
    one_score, two_score = (metrics(tmp_path / name)[-1] for name in ("one", "two"))
    assert one_score["step"] == two_score["step"] == 20
    for name in ("probe_top1", "knn_top1"):  # of 2000; parameters differ by rounding
        assert one_score[name] == pytest.approx(two_score[name], abs=1)
    a, b = (load_params(str(tmp_path / name))[0] for name in ("one", "two"))
    for x, y in zip(*(map(np.ravel, tree["encoder"]["norm"].values()) for tree in (a, b)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    assert_same(a, load_params(str(tmp_path / "one"), 20)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("config", "score"), [("vitb_in1k", "eval"), ("vitb_ssv2", "test")])
def test_two_processes_score_every_example_once(config: str, score: str, tmp_path: Path) -> None:
    """2,000 examples in batches of 96: the last one is short for both processes, or for one.

    Images by one view, videos by two.
    """
    common = ["--config.batch_size=8", "--config.steps=4", "--config.optim.warmup_steps=0"]
    common += ["--config.eval.batch_size=96", "--config.log.every=1", "--config.eval.crops=1"]
    finetune = f"configs/finetune_{config}.py:smoke"
    port = free_port()
    together = [f"--workdir={tmp_path}", *common, "--distributed", f"--coordinator=127.0.0.1:{port}"]
    processes = [start(*together, "--processes=2", f"--process={i}", config=finetune) for i in range(2)]
    ended(processes, [0, 0])
    scores = metrics(tmp_path)[-1]
    assert scores[f"{score}_examples"] == 2000

    only = [f"--workdir={tmp_path}", *common, "--config.eval.only=True"]
    with start(*only, config=finetune) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found = re.search(rf"{score}_top1 (\S+)", out)
    assert found is not None, out
    assert float(found[1]) == pytest.approx(scores[f"{score}_top1"], abs=0.11)  # two near ties at most


@pytest.mark.slow
def test_processes_that_share_parameters_start_from_weights_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning, distilled logits and pre-training on meshes of two processes with two devices each."""
    together.write_weights(tmp_path)
    command = [sys.executable, "-m", "tests.together", str(tmp_path)]
    place = [f"127.0.0.1:{free_port()}", "2", "2"]
    environment = {**os.environ, "XLA_FLAGS": QUICK, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    processes = [
        subprocess.Popen(
            [*command, str(i), *place], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    one_device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: one_device)
    alone = {
        name: together.train(config, tmp_path / "alone" / name)
        for name, config in together.runs(tmp_path).items()
    }
    ended(processes, [0, 0])
    for name, ends in alone.items():
        assert_close(dict(np.load(tmp_path / f"{name}.npz")), ends)


def ended(processes: list[subprocess.Popen[str]], codes: list[int]) -> list[tuple[str, str]]:
    """What each printed and told, once all have ended with these codes."""
    outputs = [process.communicate() for process in processes]
    told = "".join(
        f"\nprocess {i} ended with {p.returncode}:\n{outputs[i][1]}" for i, p in enumerate(processes)
    )
    assert [process.returncode for process in processes] == codes, told
    return outputs


def two(workdir: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """Both processes of a run."""
    place = ["--distributed", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    common = [f"--workdir={workdir}", "--config.batch_size=8", "--config.log.every=1"]
    common += ["--config.log.pictures_every=0", *arguments, *place]
    return [start(*common, f"--process={i}") for i in range(2)]


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_in_an_evaluation_stops_both_at_one_batch(tmp_path: Path) -> None:
    """It goes to the one that writes nothing; the evaluation of step 5 has 1,000 batches."""
    common = ["--config.method=mae", "--config.probe.every_epochs=0.004", "--config.steps=6"]
    probing = [*common, "--config.probe.examples=2000", "--config.eval.batch_size=4"]
    first, second = two(tmp_path, *probing)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("step") and " 5/6" in line:
            second.send_signal(signal.SIGTERM)
    assert all("at step 5; saved" in error for _, error in ended([first, second], [75, 75]))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]
    assert not [line for line in metrics(tmp_path) if "knn_top1" in line]

    again = two(tmp_path, *common, "--config.probe.examples=200", "--config.eval.batch_size=500")
    ended(again, [0, 0])
    assert [line["step"] for line in metrics(tmp_path) if "knn_top1" in line] == [5, 6]


@pytest.mark.slow
def test_two_processes_agree_that_the_disk_is_full_and_which_step_is_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2000) as disk:
        every = ["--config.checkpoint.every=2", "--config.steps=4", "--config.optim.warmup_steps=2"]
        processes = two(disk, *every)
        assert all("step 4 could not be saved" in error for _, error in ended(processes, [74, 74]))
        assert [p.name for p in (disk / "checkpoints").iterdir()] == ["2"]

        enlarge(disk, 20000)
        damaged = disk / "checkpoints" / "4"
        shutil.copytree(disk / "checkpoints" / "2", damaged)
        (damaged / "data" / "metadata").unlink()
        outputs = ended(two(disk, *every), [0, 0])
        assert sorted(p.name for p in (disk / "checkpoints").iterdir()) == ["2", "4", "4.damaged"]
        assert "4.damaged" in outputs[0][1]
        assert "4.damaged" not in outputs[1][1]


@pytest.mark.slow
def test_two_processes_end_when_the_disk_fills_up_while_they_save(tmp_path: Path) -> None:
    """It has room for the state when the save of step 4 begins, but not for all that is written with it."""
    with small_disk(tmp_path / "disk", 2800) as disk:
        every = ["--config.checkpoint.every=2", "--config.steps=4", "--config.optim.warmup_steps=2"]
        outputs = ended(two(disk, *every), [74, 74])
        assert all("step 4 could not be saved (No space left on device)" in error for _, error in outputs)

        enlarge(disk, 20000)
        ended(two(disk, *every), [0, 0])
        assert sorted(p.name for p in (disk / "checkpoints").iterdir()) == ["2", "4"]


MESHES = {1: (8, 1, 1), 2: (2, 2, 2), 4: (2, 2, 2)}  # data, fsdp and tensor, by number of processes


def stage(out: Path, name: str, *ends: str) -> list[subprocess.Popen[str]]:
    """A process for each way of ending, on eight devices together; diaries are as tests/recorded.py says."""
    flags = [f"--workdir={out}", "--config=configs/vitb_in1k.py:smoke", "--config.method=mae"]
    flags += ["--config.batch_size=8", "--config.steps=10", "--config.optim.warmup_steps=2"]
    flags += ["--config.checkpoint.every=2", "--config.checkpoint.keep=9"]
    flags += ["--config.log.every=1", "--config.log.pictures_every=0"]
    if any("eval" in end for end in ends):  # after the steps 5 and 10
        flags += ["--config.probe.every_epochs=0.004", "--config.probe.examples=64"]
        flags += ["--config.eval.batch_size=400", "--config.probe.epochs=1", "--config.probe.warmup_epochs=0"]
    flags += ["--config.optim.eps=1e-3"]  # else Adam makes whole steps of rounding errors
    count = len(ends)
    flags += [
        f"--config.mesh.{axis}={n}" for axis, n in zip(("data", "fsdp", "tensor"), MESHES[count], strict=True)
    ]
    if count > 1:
        flags += ["--distributed", f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}"]
    devices = f"--xla_force_host_platform_device_count={8 // count}"
    commands = [
        [sys.executable, "-m", "tests.recorded", str(out.parent / f"{name}.{i}"), end, *flags]
        + ([f"--process={i}"] if count > 1 else [])
        for i, end in enumerate(ends)
    ]
    environment = {**os.environ, "XLA_FLAGS": f"{devices} {QUICK}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) for command in commands]


def shown(out: Path, name: str) -> dict[int, list[int]]:
    """Checksums of what each step of a stage was shown by all its processes, as far as all of them came."""
    files = sorted(out.glob(f"{name}.?"))
    parts = [dict(json.loads(line) for line in file.read_text().splitlines()) for file in files]
    return {
        step: [row for part in parts for row in part[step]] for step in set.intersection(*map(set, parts))
    }


def reported(workdir: Path) -> dict[int, tuple[float, float]]:
    """Loss and gradient of each step."""
    return {x["step"]: (x["loss"], x["grad_norm"]) for x in metrics(workdir) if "loss" in x}


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_and_meshes_whatever_ended_it(tmp_path: Path) -> None:
    """One process, two of which one is killed in an evaluation, two and a save, four and a signal, one.

    Two repeat to the bit what two had computed; all compute what one would have, from the same examples.
    """
    whole, run = tmp_path / "whole", tmp_path / "run"
    ended(stage(whole, "whole", ""), [0])
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("[4-9]", "10"))  # as far as step 2

    outputs = ended(stage(run, "two", "", "KILL eval 2"), [76, -9])
    assert re.search(r"error: process 1 \(.+\) is gone \(.*\); the same command goes on", outputs[0][1])
    before = reported(run)
    outputs = ended(stage(run, "again", "KILL save 6", ""), [-9, 76])
    assert re.search(r"error: process 0 \(.+\) is gone", outputs[1][1])
    twice = shown(tmp_path, "two").keys() & shown(tmp_path, "again").keys()
    assert 5 in twice
    after = reported(run)
    assert [after[step] for step in twice] == [before[step] for step in twice]
    ended(stage(run, "four", "", "", "TERM batch 5", ""), [75] * 4)  # early: all learn of it some steps later
    ended(stage(run, "one", ""), [0])

    order = shown(tmp_path, "whole")
    stages = [shown(tmp_path, name) for name in ("two", "again", "four", "one")]
    assert set().union(*stages) >= set(range(3, 11))
    for steps in stages:
        assert steps.items() <= order.items()
    one, many = reported(whole), reported(run)
    assert list(one) == list(many) == list(range(1, 11))
    np.testing.assert_allclose(list(many.values()), list(one.values()), rtol=1e-5)
    assert_close(load_params(str(run))[0], load_params(str(whole))[0])
