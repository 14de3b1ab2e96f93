"""The bench as a user starts it where little is installed, and the input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amd_jax.measuring.measure import Options, measure
from tests.runs import ROOT, tiny

MISSING = ("grain", "clu", "orbax", "tensorflow_datasets", "tensorboardX", "tensorflow", "PIL", "safetensors")
PROGRAM = f"""
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
runpy.run_module("amd_jax.bench", run_name="__main__", alter_sys=True)
"""
SMALL = ("--config=configs/mae_vitb_in1k.py:smoke", "--config.batch_size=8", "--config.student.depth=1")


def bench(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr on one CPU device."""
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", PROGRAM, *SMALL, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_two_programs_take_turns_on_a_bare_machine(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    code, out, err = bench("--nocold", "--steps=6", "--warmup=1", f"--json={file}", "--against.batch_size=16")
    assert code == 0, err
    found = json.loads(file.read_text())
    one, other = found["programs"]
    assert (one["views"], other["views"]) == (8, 16)
    assert other["flops"] == 2 * one["flops"]
    assert one["step"]["windows"] == found["ratio"]["windows"] == 6
    assert found["ratio"]["median"] > 0
    assert one["memory"]["arguments"] < other["memory"]["arguments"]
    assert one["cold"] is None
    assert one["feeding"] is None
    assert one["of_ceiling"] == pytest.approx(one["flops"] / one["step"]["median"] / one["ceiling"])
    assert one["mfu"] is None  # of a CPU no data sheet is known
    assert "batch_size=16 student.depth=1\n  takes" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input",), "--input needs PIL, as training does: pip install"),
        (("--against.batch_sise=16",), "--against.batch_sise: no such key; did you mean batch_size"),
        (("--against=configs/none.py",), "none.py"),
        (("--json=/no/such/file",), "--json=/no/such/file: not a file that can be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.slow
def test_the_input_is_timed_alone_and_with_steps() -> None:
    """On eight devices, of which each does its own matrix products."""
    options = Options(steps=4, warmup=0, cold=False, input=True)
    (found,) = measure([("a run", tiny())], options).programs
    assert found.feeding is not None
    assert found.feeding.alone.windows == found.feeding.loop.windows == found.step.windows == 4
    assert 0 <= found.feeding.waited <= found.feeding.loop.most
    assert found.devices == 8
    assert found.bound in ("step", "input", "both")
