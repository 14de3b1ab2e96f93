"""launch/slurm.sh and launch/gpu_node.sh start real processes on CPUs; SLURM's programs are stood in for."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launchers import environment, launch, program
from tests.ports import free_port
from tests.runs import ROOT, metrics

# What the real ones do as far as the launcher relies on it.
SBATCH = """
printf '%s\\n' "$@" > "$RECORD.sbatch"
for word; do case $word in --ntasks-per-node=*) tasks=${word#*=} ;; esac; done
exec env SLURM_JOB_ID="$JOB" SLURM_NTASKS="$tasks" bash
"""
SRUN = """
while [ "${1#--}" != "$1" ]; do shift; done
for ((i = 0; i < SLURM_NTASKS; i++)); do
    export SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1
    "$@" 2> "$RECORD.task$i" & tasks[i]=$!
done
echo "${tasks[@]}" > "$RECORD.tasks"
worst=0
for task in "${tasks[@]}"; do wait "$task" || { code=$?; [ $code -le $worst ] || worst=$code; }; done
exit $worst
"""
SCONTROL = 'echo "$@" >> "$RECORD.scontrol"'


def stand_ins(folder: Path) -> dict[str, str]:
    """Puts them on the PATH; returns what the launcher has to be started with."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        program(folder / "bin", name, text)
    return environment(folder / "bin", RECORD=str(folder / "record"), JOB="7", PYTHON=sys.executable)


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (2, 0, False), (75, 0, True), (76, 99, True), (75, 100, False)],
)
def test_a_job_is_queued_again_where_the_run_can_go_on(
    code: int, restarts: int, requeued: bool, tmp_path: Path
) -> None:
    around = stand_ins(tmp_path)
    program(tmp_path, "python", f"exit {code}")
    around |= {"SLURM_RESTART_COUNT": str(restarts), "PYTHON": str(tmp_path / "python")}
    command = ["bash", "launch/slurm.sh", "--gpus=2", "--", "--config=C"]
    assert subprocess.run(command, cwd=ROOT, env=around).returncode == code
    assert (tmp_path / "record.scontrol").exists() == requeued


def test_a_cancelled_job_is_not_queued_again(tmp_path: Path) -> None:
    """scancel sends SIGTERM to the job's shell, which is the parent of srun, and to the processes."""
    around = stand_ins(tmp_path)
    program(tmp_path, "python", "exit 75")
    program(tmp_path / "bin", "srun", 'kill "$PPID"; exit 75')
    command = ["bash", "launch/slurm.sh", "--gpus=1", "--", "--config=C"]
    around["PYTHON"] = str(tmp_path / "python")
    assert subprocess.run(command, cwd=ROOT, env=around).returncode == 75
    assert not (tmp_path / "record.scontrol").exists()


@pytest.mark.parametrize(("mine", "missed", "code"), [(0, 0, 0), (75, 75, 75), (3, 76, 3), (137, 76, 137)])
def test_a_node_ends_with_the_code_of_the_process_that_failed_first(
    mine: int, missed: int, code: int, tmp_path: Path
) -> None:
    """Process 0 ends when process 1 is gone."""
    waits = 'until [ -s pid ]; do :; done; while kill -0 "$(cat pid)"; do :; done 2> /dev/null'
    text = f"case $* in *--process=1) echo $$ > pid; exit {mine} ;; *) {waits}; exit {missed} ;; esac"
    program(tmp_path, "python", f"cd {tmp_path}; {text}")
    done = launch("gpu_node", "--gpus=2", "--each", "--", "--config=C", PYTHON=str(tmp_path / "python"))
    assert done.returncode == code, done.stderr


def test_one_process_for_all_gpus_is_the_launcher_itself(tmp_path: Path) -> None:
    """So signals and exit code are its own."""
    program(tmp_path, "python", 'echo "$$ $PPID $CUDA_VISIBLE_DEVICES $NCCL_LAUNCH_MODE $*"; exit 75')
    around = {"PYTHON": str(tmp_path / "python"), "CUDA_VISIBLE_DEVICES": "2,5,7"}
    done = launch("gpu_node", "--gpus=2", "--", "--config=C", **around)
    assert done.returncode == 75
    _, parent, *rest = done.stdout.split()
    assert int(parent) == os.getpid()
    assert rest == ["2,5", "GROUP", "-m", "amd_jax.main", "--config=C"]


@pytest.mark.slow
def test_a_run_starts_in_slurm_is_told_to_save_and_goes_on_on_a_node(tmp_path: Path) -> None:
    """Two processes each, which find each other by SLURM's variables, and by flags; only one writes."""
    port = free_port(61441, 65535)
    around = stand_ins(tmp_path)
    around |= {"JOB": str(port - 61440), "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    around |= {
        name: value for name, value in os.environ.items() if name.startswith(("JAX_", "GLIBC", "PYTHONM"))
    }
    run = [
        "--",
        "--config=configs/mae_vitb_in1k.py:smoke",
        f"--workdir={tmp_path / 'run'}",
        "--config.steps=60",
    ]
    run += ["--config.batch_size=8", "--config.log.every=1", "--config.log.pictures_every=0"]

    command = ["bash", "launch/slurm.sh", "--gpus=2", *run]
    job = subprocess.Popen(command, cwd=ROOT, env=around, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    said = ""
    for line in job.stdout:
        said += line
        if line.startswith("step") and " 2/60" in line:  # as SLURM does before the time limit
            for task in (tmp_path / "record.tasks").read_text().split():
                os.kill(int(task), signal.SIGTERM)
    told = [(tmp_path / f"record.task{i}").read_text() for i in range(2)]
    assert job.wait() == 75, told
    assert (tmp_path / "record.scontrol").read_text() == f"requeue {port - 61440}\n"
    assert len(re.findall("^step +1/60 ", said, re.MULTILINE)) == 1, said

    command = ["bash", "launch/gpu_node.sh", "--gpus=2", "--each", f"--port={free_port()}", *run]
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on from the checkpoint" in done.stdout
    steps = [line["step"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert steps == list(range(1, 61))
