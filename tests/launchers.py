"""The scripts in launch/, started with no more of this environment than they need."""

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

from tests.runs import ROOT

LAUNCHERS = ("gke", "gpu_node", "run_forever", "slurm", "tpu_pod")


def environment(bin: Path | None = None, **more: str) -> dict[str, str]:
    """Programs of the folder `bin` come before others; "python" is the name of Python."""
    path = os.environ["PATH"]
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{bin}:{path}" if bin else path, "PYTHON": "python", "TMPDIR": "/tmp", **more}


def launch(name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs launch/NAME.sh to its end; `more` are environment variables."""
    command = ["bash", f"launch/{name}.sh", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(**more), capture_output=True, text=True)


def program(bin: Path, name: str, text: str) -> None:
    """Puts a shell script in the place of a program."""
    bin.mkdir(exist_ok=True)
    (bin / name).write_text(f"#!/usr/bin/env bash\n{text}")
    (bin / name).chmod(0o755)


def end(pid_file: Path) -> None:
    """Ends the loop that a failed test has left running, if any; the number may be another's by now."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if b"run_forever" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)


def until(file: Path, text: str) -> None:
    """Returns when a file, which need not be there yet, has the text."""
    wait = 'grep -qm1 -- "$1" <(tail -n +1 -F "$0" --pid=$$ 2>/dev/null)'
    subprocess.run(["bash", "-c", wait, file, text], check=True, timeout=60)


def variable(name: str, command: str) -> str:
    """The value of NAME=VALUE among the words of a command, or of a command within one of them."""
    for word in shlex.split(command):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if " " in word and f"{name}=" in word and (found := variable(name, word)):
            return found
    return ""
