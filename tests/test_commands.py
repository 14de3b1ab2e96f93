"""`amd-jax COMMAND`, which is `python -m amd_jax COMMAND`."""

import runpy
import subprocess
import sys

import pytest

from amd_jax.__main__ import COMMANDS
from tests.runs import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m amd_jax` as a user starts it."""
    command = [sys.executable, "-m", "amd_jax", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_its_module_started_with_the_other_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = {}
    monkeypatch.setattr(sys, "argv", ["amd-jax", name, "--some=thing", "DIR"])
    monkeypatch.setattr(runpy, "run_module", lambda module, **options: started.update(options, module=module))
    from amd_jax import __main__

    __main__.main()
    assert started == {"module": COMMANDS[name][0], "run_name": "__main__", "alter_sys": True}
    assert sys.argv == ["amd-jax", "--some=thing", "DIR"]


def test_the_commands_own_exit_code_and_message_are_the_users() -> None:
    result = run("train", "--config=configs/demo.py")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: --workdir is missing")


def test_a_command_that_only_lists_does_so() -> None:
    result = run("config")
    assert result.returncode == 0
    assert "\noptim.base_lr = " in result.stdout


def test_help_names_every_command_and_what_it_is_for() -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for name, (_, meaning) in COMMANDS.items():
        assert f"  {name}" in result.stdout
        assert meaning in result.stdout


@pytest.mark.parametrize(("arguments", "words"), [((), "is missing"), (("trian",), "'trian' is no command")])
def test_an_unknown_command_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert words in line
    assert "train, probe" in line
