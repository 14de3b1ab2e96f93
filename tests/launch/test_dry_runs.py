"""What each launcher would run, held against recorded texts, and what it says to a mistake."""

import subprocess
from pathlib import Path

import pytest

from tests.golden import check
from tests.launchers import LAUNCHERS, launch, variable

FOLDER = Path(__file__).parent / "dry_runs"
RUN = ("--", "--config=configs/vitb_in1k.py", "--workdir=gs://bucket/it's one", "--config.batch_size=1024")
TPU = ("--name=vitb", "--zone=us-west4-a")
CASES = {
    "gke": ("gke", "apply", "--name=vitb", "--image=eu.example/amd_jax", *RUN),
    "gke_spot": ("gke", "apply", "--name=vitb", "--image=amd_jax", "--topology=2x2x4", "--spot",
                 "--accelerator=tpu-v5p-slice", "--account=trainer", "--restarts=5", *RUN),
    "gke_log": ("gke", "log", "--name=vitb"),
    "gke_delete": ("gke", "delete", "--name=vitb"),
    "gpu_node": ("gpu_node", "--gpus=4", *RUN),
    "gpu_node_each": ("gpu_node", "--gpus=2", "--each", "--port=30000", *RUN),
    "run_forever": ("run_forever", "--pause=1", "--", "python", "-m", "amd_jax.main", *RUN[1:]),
    "run_forever_background": ("run_forever", "--background=runs/a log", "--", "python", "-m", "json.tool"),
    "slurm": ("slurm", "--nodes=2", "--gpus=4", "--time=24:00:00", "--sbatch=--partition=gpu", *RUN),
    "tpu_pod": ("tpu_pod", "create", "install", "start", "log", "stop", "delete", *TPU, *RUN),
    "tpu_pod_queued": ("tpu_pod", "create", "delete", *TPU, "--queued", "--spot",
                       "--type=v6e-8", "--project=p"),
}  # fmt: skip
WRONG = {
    ("gke",): "no command",
    ("gke", "apply", "--name=V"): "--name=V: give small letters",
    ("gke", "apply", "--name=v", "--image=i"): "no flags of a run",
    ("gke", "apply", "--name=v", *RUN): "--image=IMAGE is missing",
    ("gke", "apply", "--name=v", "--image=i", "--topology=3x3", *RUN): "9 chips are not a whole number",
    ("gke", "apply", "--name=v", "--image=i", "--topology=16", *RUN): "--topology=16: give chips as 4x4",
    ("gpu_node",): "no flags of a run",
    ("gpu_node", "--gpus=9", *RUN): "--gpus=9: give a number from 1 to 8",
    ("gpu_node", "--gpus=two", *RUN): "--gpus=two: give a whole number",
    ("run_forever",): "no command",
    ("run_forever", "python"): "python: not understood",
    ("run_forever", "--stop=/nowhere/log"): "/nowhere/log.pid is not there",
    ("slurm",): "no flags of a run",
    ("slurm", "--nodes=0", *RUN): "give numbers from 1",
    ("slurm", "--time=", *RUN): "--time: give it a value",
    ("slurm", "--sbatch=", *RUN): "--sbatch: give it a value",
    ("tpu_pod", *TPU): "no command",
    ("tpu_pod", "crate", *TPU): "crate: not understood",
    ("tpu_pod", "create", "--name=v"): "--zone=ZONE is missing",
    ("tpu_pod", "create", "--zone=z"): "--name=NAME is missing",
    ("tpu_pod", "start", *TPU): "start: no flags of a run",
    ("tpu_pod", "create", *TPU, "--type=v9-8"): "--type=v9-8: which software",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_is_what_is_written_down(name: str) -> None:
    launcher, *arguments = CASES[name]
    # Before "--" comes what is the launcher's, behind it what is the run's.
    done = launch(launcher, "--dry_run", *arguments)
    assert done.returncode == 0, done.stderr
    check(FOLDER / f"{name}.txt", done.stdout.splitlines())


def test_every_recorded_text_is_that_of_a_case() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...]) -> None:
    launcher, *rest = arguments
    done = launch(launcher, "--dry_run", *rest)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert WRONG[arguments] in done.stderr


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_names_every_option(name: str) -> None:
    done = launch(name, "--help")
    assert done.returncode == 0
    script = (Path("launch") / f"{name}.sh").read_text()
    options = {
        line.split(")")[0].strip(" *").rstrip("=*")
        for line in script.splitlines()
        if line.startswith("    --")
    }
    named = {
        part
        for option in options
        for part in option.replace("*", "").split(" | ")
        if part not in ("--", "--help")
    }
    assert named
    assert not [option for option in named if option.rstrip("=") not in done.stdout]


def test_what_the_environment_says_comes_after_the_flags_of_the_launchers() -> None:
    done = launch("gpu_node", "--dry_run", "--gpus=1", *RUN, XLA_FLAGS="--last", NCCL_DEBUG="INFO")
    assert variable("XLA_FLAGS", done.stdout).endswith(" --last")
    assert "NCCL_DEBUG=INFO" in done.stdout


def test_what_is_printed_is_read_by_a_shell_as_the_same_words() -> None:
    words = ["it's", 'a "b"', "$HOME `c` \\ & | ; * ? ~ !", "", "two\nlines", "\\'", "ü", "--x=[1, 2]"]
    printed = launch("run_forever", "--dry_run", "--", "printf", "%s\\0", *words).stdout
    assert printed.count("\n") == 1
    read = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, check=True).stdout
    assert read.split("\0")[:-1] == words
