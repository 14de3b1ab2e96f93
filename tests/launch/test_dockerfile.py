"""launch/Dockerfile: linted; what it copies is there; its commands do in a plain shell what they are for."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launchers import environment, program
from tests.runs import ROOT

DOCKERFILE = ROOT / "launch" / "Dockerfile"
LINTER = Path(sys.executable).parent / "hadolint"


def instructions() -> list[tuple[str, str]]:
    """Each with its text on one line; comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def ignored(path: str) -> bool:
    """Whether launch/Dockerfile.dockerignore, which lists what is wanted, keeps a path out of the build."""
    wanted = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    assert wanted[0] == "*"
    return not any(Path(path).match(name.removeprefix("!")) for name in wanted[1:] if name.startswith("!"))


@pytest.mark.skipif(not LINTER.exists(), reason="no wheel of hadolint for this machine")
def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    done = subprocess.run([LINTER, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text().replace("--no-cache-dir", ""))
    assert subprocess.run([LINTER, worse], capture_output=True).returncode == 1


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [path for name, text in instructions() if name == "COPY" for path in shlex.split(text)[:-1]]
    assert {"amd_jax", "configs", "requirements*.txt"} <= set(copied)
    for pattern in copied:
        found = [str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)]
        assert found, pattern
        assert not [path for path in found if ignored(path)]


def install(tmp_path: Path, device: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs its one RUN for a device, with a pip that only notes what it is given."""
    program(tmp_path, "pip", f'printf "%s\\n" "$@" > {tmp_path}/given')
    (command,) = [text for name, text in instructions() if name == "RUN"]
    defaults = dict(shlex.split(text)[0].split("=", 1) for name, text in instructions() if name == "ARG")
    around = environment(tmp_path, **{**defaults, "DEVICE": device})
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=around, capture_output=True, text=True)
    given = tmp_path / "given"
    return done, given.read_text().splitlines() if given.exists() else []


@pytest.mark.parametrize(
    ("device", "first"),
    [("cpu", "requirements.txt"), ("tpu", "requirements-tpu.txt"), ("gpu", "requirements-gpu.txt")],
)
def test_the_requirements_of_the_device_are_installed(device: str, first: str, tmp_path: Path) -> None:
    done, given = install(tmp_path, device)
    assert done.returncode == 0, done.stderr
    assert given[:2] == ["install", "--no-cache-dir"]
    files = given[3::2]
    assert given[2::2] == ["-r"] * len(files)
    assert files == [first, "requirements-gcs.txt", "requirements-video.txt"]
    assert all((ROOT / name).exists() for name in files)


def test_another_device_is_refused(tmp_path: Path) -> None:
    done, given = install(tmp_path, "abacus")
    assert (done.returncode, given) == (2, [])
    assert done.stderr == "error: DEVICE=abacus: give tpu, gpu or cpu\n"


def test_the_image_starts_the_command_that_exists() -> None:
    (entry,) = [text for name, text in instructions() if name == "ENTRYPOINT"]
    assert re.findall(r'"([^"]+)"', entry) == ["python", "-m", "amd_jax.main"]
