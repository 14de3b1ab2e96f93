"""launch/tpu_pod.sh from nothing to a run that is stopped, on two hosts that are folders of this machine."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launchers import end, environment, program, until
from tests.runs import ROOT

# A TPU of two hosts. `ssh` and `scp` do what they are told in the hosts' home folders, `describe` says the
# next line of a file, and every call is noted.
GCLOUD = r"""
echo "$*" >> "$PLACE/calls"
for word; do
    case $word in
    --worker=all) workers='0 1' ;;
    --worker=*) workers=${word#*=} ;;
    --command=*) text=${word#*=} ;;
    esac
done
case " $* " in
*' describe '*)
    line=$(head -n 1 "$PLACE/states")
    sed -i 1d "$PLACE/states"
    [ -n "$line" ] || exit 1
    echo "$line" ;;
*' scp '*) for n in $workers; do cp "$5" "$PLACE/host$n/${6#*:}"; done ;;
*' ssh '*) for n in $workers; do (cd "$PLACE/host$n" && HOME=$PWD HOST=$n bash -c "$text") || exit; done ;;
esac
"""
# In the place of each host's Python: installs nothing, and trains until SIGTERM.
PYTHON = r"""
echo "$*" >> "$PLACE/python$HOST"
case $* in
*amd_jax.main*)
    trap 'echo saved; exit 75' TERM
    [ -e never ] || mkfifo never
    echo "flags $LIBTPU_INIT_ARGS"
    read < never ;;
esac
"""
NAME = ["--name=vitb", "--zone=us-west4-a"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The folder that has both hosts, each with an environment, and `calls` of gcloud."""
    program(tmp_path / "bin", "gcloud", GCLOUD)
    for n in (0, 1):
        program(tmp_path / f"host{n}", "fake", PYTHON)
        folder = tmp_path / f"host{n}" / "amd_jax" / ".venv" / "bin"
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / f"host{n}" / "fake", folder / "python")
    (tmp_path / "states").write_text("")
    yield tmp_path
    for n in (0, 1):
        end(tmp_path / f"host{n}" / "amd_jax" / "run.log.pid")


def pod(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the launcher; the hosts' Python is the one in their environment."""
    command = ["bash", "launch/tpu_pod.sh", *arguments]
    around = environment(place / "bin", PLACE=str(place), TMPDIR=str(place))
    around.pop("PYTHON")
    return subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True)


def calls(place: Path) -> list[str]:
    """What gcloud was told to do, without the fixed words."""
    lines = (place / "calls").read_text().splitlines() if (place / "calls").exists() else []
    return [line.removeprefix("compute tpus ").split(" vitb")[0] for line in lines]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no repository, which is what is installed")
def test_a_run_is_installed_started_shown_and_stopped_on_all_hosts(place: Path) -> None:
    run = ["--config=C", "--workdir=gs://bucket/it's one"]
    done = pod(place, "create", "install", "start", *NAME, "--", *run)
    assert done.returncode == 0, done.stderr
    for n in (0, 1):
        home = place / f"host{n}" / "amd_jax"
        assert (home / "configs" / "vitb_in1k.py").read_text()  # a commit of this repository
        until(home / "run.log", "flags")
        *installed, started = (place / f"python{n}").read_text().splitlines()
        assert [line.split()[-1] for line in installed if "pip install" in line] == [
            "requirements-tpu.txt",
            "requirements-gcs.txt",
        ]
        assert started == f"-m amd_jax.main --distributed {' '.join(run)}"

    again = pod(place, "start", *NAME, "--", *run)
    assert again.returncode == 2
    assert "stop it first" in again.stderr

    stopped = pod(place, "stop", "delete", *NAME)
    assert stopped.returncode == 0, stopped.stderr
    for n in (0, 1):
        said = (place / f"host{n}" / "amd_jax" / "run.log").read_text()
        assert "flags \n" in said
        assert "saved" in said
    shown = pod(place, "log", *NAME)  # it has ended, so this ends
    assert "saved" in shown.stdout
    assert [call.split()[1] for call in calls(place)] == [
        "describe", "create", "scp", "ssh", "ssh", "ssh", "ssh", "delete", "ssh",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("READY", ["describe"]),
        ("PREEMPTED", ["describe", "delete", "create"]),
        ("", ["describe", "create"]),
    ],
)
def test_a_tpu_that_is_there_is_taken(states: str, expected: list[str], place: Path) -> None:
    (place / "states").write_text(f"{states}\n")
    assert pod(place, "create", *NAME, "--type=v4-8").returncode == 0
    assert [call.split()[1] for call in calls(place)] == expected


@pytest.mark.parametrize(
    ("states", "code", "expected"),
    [
        ("ACTIVE", 0, "d"),
        ("PROVISIONING ACTIVE", 0, "dd"),
        ("- WAITING_FOR_RESOURCES PROVISIONING ACTIVE", 0, "dcddd"),
        ("SUSPENDED ACTIVE", 0, "dxcd"),
        ("- WAITING_FOR_RESOURCES FAILED", 2, "dcdd"),
    ],
)
def test_a_queued_tpu_is_waited_for(states: str, code: int, expected: str, place: Path) -> None:
    """describe, create and delete (x) in the order that the states ask for; "-" is that there is none."""
    (place / "states").write_text("".join(f"{state.strip('-')}\n" for state in states.split()))
    done = pod(place, "create", *NAME, "--queued", "--spot", "--poll=0")
    assert done.returncode == code, done.stderr
    letters = {"describe": "d", "create": "c", "delete": "x"}
    assert "".join(letters[call.split()[1]] for call in calls(place)) == expected
    assert all(call.startswith("queued-resources") for call in calls(place))
    assert done.stderr.startswith("error: vitb is FAILED") == bool(code)


def test_a_host_without_a_new_enough_python_gets_one(place: Path) -> None:
    """Ubuntu's package, with its venv; the rest goes on with it."""
    home = place / "new"
    shutil.copytree(ROOT / "launch", home / "launch")
    (home / "requirements.txt").write_text("")
    tools, notes = place / "tools", place / "notes"
    # Where it is called python3.11 only after it has been installed.
    made = f'printf "#!/bin/bash\\necho \\$* >> {notes}" > .venv/bin/python; chmod +x .venv/bin/python'
    program(tools, "package", f'echo "$*" >> {notes}; [ "$2" != venv ] || {{ mkdir -p .venv/bin; {made}; }}')
    install = f'case $* in *" install "*) mv {tools}/package {tools}/python3.11 ;; esac'
    program(tools, "sudo", f'echo "$*" >> {notes}; {install}')
    for name in ("bash", "basename", "cat", "chmod", "cmp", "dirname", "env", "grep", "mkdir", "mv"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["/bin/bash", "launch/tpu_host.sh"],
        cwd=home,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = notes.read_text()
    words = [
        "install python3.11 python3.11-venv",
        "-m venv .venv",
        "requirements-tpu.txt",
        "requirements-gcs.txt",
    ]
    assert [said.index(word) for word in words] == sorted(said.index(word) for word in words)
