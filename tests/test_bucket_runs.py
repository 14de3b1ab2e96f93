"""Runs whose workdir is in a bucket, from the command line, and what reads them there."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from amd_jax import buckets, checksums, probe
from amd_jax.convert import cli
from amd_jax.convert.files.opening import open_source, read_stated
from amd_jax.train import loop, setup
from amd_jax.workdir import FOLDER, load_params, run_config
from tests.gcs import Storage
from tests.ports import free_port
from tests.runs import assert_same, losses, start
from tests.test_distributed import ended

SMALL = ["--config.batch_size=8", "--config.log.every=1", "--config.checkpoint.every=5"]
SMALL += ["--config.checkpoint.keep=2", "--config.log.pictures_every=10"]


def stopped_after(step: int, process: subprocess.Popen[str], how: signal.Signals) -> str:
    """What the process told, which was sent this signal when it had logged the step."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step") and f" {step}/20" in line:
            process.send_signal(how)
    process.wait()
    return process.stderr.read() if process.stderr else ""


@pytest.fixture(scope="module")
def run(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run in a bucket that was terminated, killed and went on both times; and an unbroken one on a disk."""
    where, disk = f"{storage.new_bucket()}/runs/amd", tmp_path_factory.mktemp("disk")
    with start(f"--workdir={where}", *SMALL) as process:
        told = stopped_after(3, process, signal.SIGTERM)
    assert process.returncode == 75, told
    assert "Traceback" not in told
    with start(f"--workdir={where}", *SMALL) as process:
        stopped_after(13, process, signal.SIGKILL)
    half = buckets.place(where) / FOLDER / "13"  # as if it had been saving
    (half / "params" / "manifest.ocdbt").write_text("half")
    runs = [start(f"--workdir={place}", *SMALL) for place in (where, disk)]
    ended(runs, [0, 0])
    return where, disk


@pytest.mark.slow
def test_a_run_goes_on_in_a_bucket_with_the_bits_of_one_on_a_disk(run: tuple[str, Path]) -> None:
    where, disk = run
    assert list(losses(where)) == list(range(1, 21))
    assert losses(where) == losses(disk)
    assert_same(load_params(where)[0], load_params(str(disk))[0])


@pytest.mark.slow
def test_a_run_leaves_in_a_bucket_what_it_leaves_on_a_disk(run: tuple[str, Path]) -> None:
    where, disk = run
    folder = buckets.place(where)
    names = {name for name in buckets.listing(folder) if not name.startswith((FOLDER, "events"))}
    files = {str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file()}
    assert names == {name for name in files if not name.startswith((FOLDER, "events"))}
    for name in names - {"metrics.jsonl"}:
        assert (folder / name).read_bytes() == (disk / name).read_bytes()
    assert len(list(folder.glob("events*"))) == 3  # one for each start that came to an end or a save
    assert sorted(p.name for p in (folder / FOLDER).iterdir()) == ["15", "20"]
    assert checksums.exist(folder / FOLDER / "20")
    assert checksums.damage(folder / FOLDER / "20") == ""


@pytest.mark.slow
def test_a_run_in_a_bucket_is_probed_exported_scored_and_a_teacher(
    run: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, disk = run
    few = ["--examples=100", "--config.eval.batch_size=100"]
    outputs = []
    for place in (where, str(disk)):
        assert probe.main([place, *few]) == 0
        outputs.append(capsys.readouterr().out.splitlines()[1].split()[1:])
    assert outputs[0] == outputs[1]

    for out in (str(tmp_path / "timm"), f"{where}/timm"):
        assert cli.main(["export", where, "--format=timm", f"--out={out}"]) == 0
    assert f"wrote {where}/timm/model.safetensors" in capsys.readouterr().out
    assert_same(open_source(f"{where}/timm").arrays, open_source(str(tmp_path / "timm")).arrays)

    ours, theirs = open_source(where), open_source(str(disk))
    assert (ours.path, ours.what) == (where, theirs.what)
    assert_same(ours.arrays, theirs.arrays)
    assert read_stated(where).mean == read_stated(str(disk)).mean

    config = run_config(where)
    config.eval.only, config.eval.batch_size = True, 96
    config.probe.every_epochs, config.probe.examples = 1.0, 100
    scores = [loop.evaluate_only(setup.prepare(config, place)) for place in (where, str(disk))]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_two_processes_go_on_in_a_bucket_and_save_there_together(run: tuple[str, Path]) -> None:
    where = f"{run[0]}_by_two"
    buckets.filesystem().cp(run[0], where, recursive=True)
    arguments = [f"--workdir={where}", *SMALL, "--config.steps=22", "--config.log.pictures_every=0"]
    arguments += ["--distributed", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    ended([start(*arguments, f"--process={i}") for i in range(2)], [0, 0])
    folder = buckets.place(where) / FOLDER
    assert sorted(p.name for p in folder.iterdir()) == ["20", "22"]
    watched = json.loads((folder / "22" / checksums.FILE).read_text())
    writers = {name.split("/")[1] for name in watched if "ocdbt.process_" in name}
    assert writers == {"ocdbt.process_0", "ocdbt.process_1"}
    assert checksums.damage(folder / "22") == ""
    assert load_params(where)[1] == 22
    assert list(losses(where)) == list(range(1, 23))
