"""Config files are found wherever a command is started, and find what they share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amd_jax import config_files
from tests.runs import ROOT


@pytest.mark.parametrize("argument", ["", ":smoke"])
def test_a_shipped_config_is_found_from_any_folder(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = f"{ROOT / 'configs' / 'vitb_in1k.py'}{argument}"
    asked = f"configs/vitb_in1k.py{argument}"
    assert config_files.locate(["main", f"--config={asked}", "-v"]) == ["main", f"--config={shipped}", "-v"]
    assert config_files.locate(["main", "--config", asked]) == ["main", "--config", shipped]


def test_a_config_that_is_here_or_nowhere_is_taken_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vitb_in1k.py").touch()
    for path in ("configs/vitb_in1k.py", "configs/none.py", "vits_in1k.py", "/configs/vits_in1k.py"):
        assert config_files.locate(["main", f"--config={path}"]) == ["main", f"--config={path}"]
    assert config_files.locate(["main", "--config"]) == ["main", "--config"]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder in which the package lies as an installed one does, with its configs inside."""
    package = tmp_path / "site" / "amd_jax"
    package.mkdir(parents=True)
    for path in [*(ROOT / "amd_jax").iterdir(), ROOT / "configs"]:
        (package / path.name).symlink_to(path)
    return package.parent


@pytest.mark.parametrize("config", ["configs/vitb_in1k.py:smoke", "configs/own.py", "elsewhere.py"])
def test_installed_configs_load_beside_own_ones_that_use_what_they_share(
    config: str, tmp_path: Path, installed: Path
) -> None:
    """What is missing in the end is the workdir: the config was loaded."""
    own = "from configs import common\n\n\ndef get_config():\n    return common.base()\n"
    here = tmp_path / "here"
    (here / "configs").mkdir(parents=True)
    (here / "configs" / "own.py").write_text(own)
    (here / "elsewhere.py").write_text(own)
    result = subprocess.run(
        [sys.executable, "-m", "amd_jax", "train", f"--config={config}"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "--workdir is missing" in result.stderr


def test_a_shipped_config_uses_the_shipped_parts_though_the_folder_has_its_own(
    tmp_path: Path, installed: Path
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "common.py").write_text("raise AssertionError('of another project')")
    result = subprocess.run(
        [sys.executable, "-m", "amd_jax", "train", "--config=configs/vitb_in1k.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--workdir is missing" in result.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--config=a.py --config.seed=1 --steps=3", "--config=a.py --config.seed=1 --steps=3"),
        ("--config=a.py --against=b.py --against.seed=1", "--config=a.py --against=b.py --against.seed=1"),
        (
            "--config=a.py --config.seed=1 --against.seed=2",
            "--against=a.py --against.seed=1 --config=a.py --config.seed=1 --against.seed=2",
        ),
        (
            "--config configs/config.py --against.seed 2",
            "--against configs/config.py --config configs/config.py --against.seed 2",
        ),
    ],
)
def test_a_second_config_without_a_file_is_a_copy_of_the_first(given: str, expected: str) -> None:
    assert config_files.with_against(["bench", *given.split()]) == ["bench", *expected.split()]
