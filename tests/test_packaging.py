"""What `pip install` brings: the package with its configs, its requirements and its licence."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests import QUICK
from tests.runs import ROOT, metrics

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_modules_is_a_package_of_the_wheel() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "amd_jax").rglob("__init__.py")}
    assert listed == {folder.replace(os.sep, ".") for folder in folders} | {"amd_jax.configs"}


def test_extras_are_what_the_requirements_files_say() -> None:
    for name, extra in PROJECT["project"]["optional-dependencies"].items():
        lines = (ROOT / f"requirements-{name}.txt").read_text().splitlines()
        assert extra == [line for line in lines if line and not line.startswith(("#", "-r"))]


@pytest.mark.slow
def test_the_wheel_alone_trains_in_an_empty_folder(tmp_path: Path) -> None:
    """Built from a copy, since a build leaves its files behind; the libraries are the tests' own."""
    source, wheels, site, here = (tmp_path / name for name in ("source", "wheels", "site", "here"))
    source.mkdir()
    here.mkdir()
    for name in ("amd_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    ours = [path.relative_to(ROOT) for name in ("amd_jax", "configs") for path in (ROOT / name).rglob("*.py")]
    for path in ours:
        assert (f"amd_jax/{path}" if path.parts[0] == "configs" else str(path)) in names
    assert {name.split("/")[0] for name in names} == {"amd_jax", "amd_jax-0.1.0.dist-info"}
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)

    environment = {**os.environ, "PYTHONPATH": str(site), "XLA_FLAGS": QUICK}
    command = [sys.executable, str(site / "bin" / "amd-jax"), "train"]
    # The very run of tests/test_main.py, which may have left its compiled step in the cache.
    command += ["--config=configs/vitb_in1k.py:smoke", "--workdir=W", "--config.batch_size=8"]
    command += ["--config.log.every=5", "--config.log.pictures_every=0"]
    result = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [line["step"] for line in metrics(here / "W") if "loss" in line] == [5, 10, 15, 20]
    where = [sys.executable, "-c", "import amd_jax; print(amd_jax.__file__)"]
    found = subprocess.run(where, cwd=here, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).parent == site / "amd_jax"
