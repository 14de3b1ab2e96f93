"""launch/run_forever.sh starts again after 75 and 76 while there is progress, and never against a signal."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launchers import end, environment, launch, until
from tests.runs import ROOT

# Counts its starts, and does at each what a file of that number says, or at last "end".
COMMAND = 'echo . >> starts; n=$(grep -c . starts); [ -e "$n" ] || n=end; . "./$n"'


def supervise(folder: Path, *options: str, **starts: str) -> subprocess.CompletedProcess[str]:
    """Runs a command under the loop; `s1`, `s2`, … and `end` are what it does at its starts."""
    return launch("run_forever", "--pause=0", *options, "--", *_command(folder, **starts))


def _command(folder: Path, **starts: str) -> list[str]:
    for name, text in starts.items():
        (folder / name.removeprefix("s")).write_text(text)
    return ["bash", "-c", f"cd {folder}; {COMMAND}", "command", f"--workdir={folder}"]


def count(folder: Path) -> int:
    """How often the command was started."""
    return len((folder / "starts").read_text().split())


@pytest.mark.parametrize("code", [0, 1, 2, 3, 74, 137])
def test_other_exit_codes_are_passed_on(code: int, tmp_path: Path) -> None:
    done = supervise(tmp_path, s1="exit 75", s2="exit 76", end=f"exit {code}")
    assert done.returncode == code
    assert count(tmp_path) == 3


@pytest.mark.parametrize("code", [75, 76])
def test_without_progress_the_starts_are_limited(code: int, tmp_path: Path) -> None:
    done = supervise(tmp_path, "--restarts=4", end=f"exit {code}")
    assert done.returncode == code
    assert count(tmp_path) == 5
    assert f"error: started 4 times more without a new checkpoint in {tmp_path}" in done.stderr


def test_a_new_checkpoint_starts_the_count_anew(tmp_path: Path) -> None:
    """Only a number is one; at each of ten starts there is a new one, then four times none."""
    steps = {f"s{n}": f"mkdir -p checkpoints/{n}; exit 76" for n in range(1, 11)}
    done = supervise(tmp_path, "--restarts=3", **steps, end="mkdir -p checkpoints/$RANDOM.damaged; exit 75")
    assert done.returncode == 75
    assert count(tmp_path) == 10 + 3
    assert "from checkpoint 10" in done.stderr


def test_checkpoints_of_a_url_are_listed_too(tmp_path: Path) -> None:
    """By fsspec, which knows file:// as it knows gs://; what it cannot list is no progress."""
    steps = {f"s{n}": f"mkdir -p checkpoints/{n}; exit 76" for n in range(1, 3)}
    *command, _ = _command(tmp_path, **steps, end="exit 0")
    url = f"--workdir=file://{tmp_path}"
    done = launch("run_forever", "--pause=0", "--restarts=1", "--", *command, url, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert count(tmp_path) == 3
    assert "from checkpoint 2" in done.stderr

    nowhere = ["bash", "-c", "exit 76", "command", "--workdir=nothing://there"]
    done = launch("run_forever", "--pause=0", "--restarts=0", "--", *nowhere, PYTHON=sys.executable)
    assert done.returncode == 76
    assert "warning: checkpoints cannot be listed" in done.stderr


def test_the_pause_doubles_until_there_is_progress(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sleep").write_text('#!/bin/sh\necho "$@" >> ' + str(tmp_path / "slept"))
    (tmp_path / "bin" / "sleep").chmod(0o755)
    steps = {f"s{n}": "exit 76" for n in range(1, 6)} | {"s6": "mkdir -p checkpoints/1; exit 76"}
    command = ["bash", "launch/run_forever.sh", "--pause=2", "--longest=15", "--"]
    command += _command(tmp_path, **steps, end="exit 0")
    subprocess.run(command, cwd=ROOT, env=environment(tmp_path / "bin"), check=True, stderr=subprocess.PIPE)
    assert (tmp_path / "slept").read_text().split() == ["2", "4", "8", "15", "15", "2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_on_to_the_command_which_is_not_started_again(
    number: signal.Signals, tmp_path: Path
) -> None:
    """It saves for a while; the loop waits for it."""
    waits = "trap 'echo saved > saved; exit 75' TERM INT; mkfifo never; echo up; read < never"
    loop = start(tmp_path, end=waits)
    loop.send_signal(number)
    _, error = loop.communicate()
    assert loop.returncode == 75, error
    assert (tmp_path / "saved").exists()
    assert count(tmp_path) == 1
    assert "going on" not in error


def test_a_signal_in_the_pause_ends_the_loop(tmp_path: Path) -> None:
    loop = start(tmp_path, "--pause=1000", end="echo up; exit 76")
    assert loop.stderr is not None
    assert "going on in 1000 s" in loop.stderr.readline()
    loop.send_signal(signal.SIGTERM)
    loop.communicate()
    assert loop.returncode == 76
    assert count(tmp_path) == 1


def start(folder: Path, *options: str, **starts: str) -> subprocess.Popen[str]:
    """The loop, once its command has said "up"."""
    command = ["bash", "launch/run_forever.sh", *options, "--", *_command(folder, **starts)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # No shell can catch what was ignored when it started, as SIGINT is in the background of another one.
    loop = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )
    assert loop.stdout is not None
    assert loop.stdout.readline() == "up\n"
    return loop


def test_in_the_background_one_loop_writes_to_a_file_until_it_is_stopped(tmp_path: Path) -> None:
    """Nothing is started beside it; --stop returns when it has ended, and what it said last is shown."""
    waits = "trap 'echo saved; exit 75' TERM; mkfifo never; echo up; read < never"
    log, command = tmp_path / "logs" / "run", _command(tmp_path, end=waits)
    background = [f"--background={log}", "--", *command]
    try:
        assert launch("run_forever", *background).returncode == 0
        until(log, "up")
        second = launch("run_forever", *background)
        assert second.returncode == 2
        assert "stop it first" in second.stderr
        stopped = launch("run_forever", f"--stop={log}")
        assert stopped.returncode == 0, stopped.stderr
        assert stopped.stdout == "saved\n"
        assert count(tmp_path) == 1
        again = launch("run_forever", f"--stop={log}")
        assert again.returncode == 0
        assert "has ended already" in again.stdout
    finally:
        end(tmp_path / "logs" / "run.pid")
