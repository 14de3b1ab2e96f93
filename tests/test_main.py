"""The command line: exit codes, one-line errors, quick start, no TensorFlow, and runs on real files."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import ROOT, metrics, start, tiny, untrained

SMALL = ["--config.batch_size=8", "--config.log.every=5", "--config.log.pictures_every=0"]


def run(*arguments: str, config: str = "configs/vitb_in1k.py:smoke") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `python -m amd_jax.main`."""
    with start(*arguments, config=config) as process:
        out, err = process.communicate()
    return process.returncode, out, err


WRONG = [
    ([], "--workdir is missing"),
    (["--workdir=W", "--config.data.pth=x"], "did you mean data.path"),
    (["--workdir=W", "--config.batch_size=many"], "batch_size"),
    (["--workdir=W", "--nosuch=1"], "nosuch"),
    (["--workdir=W", "batch_size=8"], "not understood"),
    (["--workdir=W", "--distributed"], "give --coordinator, --processes and --process"),
    (["--workdir=W", "--config.data.image_size=33"], "data.image_size=33"),
    (["--workdir=W", "--config.data.source=folder", "--config.data.path=/no/such"], "/no/such"),
    (["--workdir=W", "--config.teacher.random=False"], "needs a teacher"),
    (["--workdir=W", "--config.mesh.data=3"], "does not fit 1 devices"),
    (
        ["--workdir=W", "--config.optim.warmup_steps=0", "--config.optim.warmup_epochs=1"],
        "312 steps of warm-up are longer than the run of 20",
    ),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    workdir = tmp_path / "W"
    code, _, err = run(*[a.replace("--workdir=W", f"--workdir={workdir}") for a in arguments])
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert (code, len(lines)) == (2, 1), err
    assert words in lines[0]
    assert "Traceback" not in err
    assert not workdir.exists()


def test_weights_that_do_not_fit_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    untrained(tiny(method="mae"), tmp_path / "mae")
    weights = ["--config.student.width=48", f"--config.student.weights={tmp_path / 'mae'}"]
    code, _, err = run(f"--workdir={tmp_path / 'W'}", *weights)
    assert code == 2, err
    assert "has width 32, the config asks for 48" in err
    assert "Traceback" not in err
    assert not (tmp_path / "W").exists()


@pytest.mark.parametrize(
    ("config", "words"), [("configs/none.py", "configs/none.py"), ("configs/vitb_in1k.py:big", "'big'")]
)
def test_a_config_that_cannot_be_loaded_is_one_line(config: str, words: str, tmp_path: Path) -> None:
    code, _, err = run(f"--workdir={tmp_path}", config=config)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_importing_the_package_and_help_do_not_import_jax() -> None:
    """Which is what makes them answer at once."""
    script = """
import sys
from amd_jax import main
try:
    main.parse(["main", "--help"])
except SystemExit:
    pass
assert "jax" not in sys.modules and "tensorflow" not in sys.modules and "grain" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_a_folder_of_jpegs_with_broken_files_trains_and_counts_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 255, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    broken = tmp_path / "images" / "train" / "cat" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    empty = tmp_path / "images" / "train" / "dog" / "5.jpg"
    empty.write_bytes(b"")
    data = ["--config.data.source=folder", f"--config.data.path={tmp_path / 'images'}"]
    workdir = tmp_path / "W"
    code, _, err = run(f"--workdir={workdir}", *data, *SMALL)
    assert code == 0, err
    assert metrics(workdir)[-1]["data_skipped"] == 2
    assert str(broken) in err
    assert str(empty) in err

    code, _, err = run(f"--workdir={tmp_path / 'V'}", *data, *SMALL, "--config.data.max_corrupt=1")
    assert code == 2
    assert "data.max_corrupt" in err


@pytest.mark.slow
def test_sigterm_ends_with_its_own_exit_code_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments = [f"--workdir={tmp_path}", *SMALL, "--config.log.every=1"]
    with start(*arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step") and " 3/20" in line:
                process.send_signal(signal.SIGTERM)
        err = process.stderr.read() if process.stderr else ""
    assert process.returncode == 75, err
    assert "SIGTERM" in err
    code, out, _ = run(*arguments)
    assert code == 0
    assert "going on from the checkpoint of step" in out
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 21))


@pytest.mark.slow
def test_training_does_not_import_tensorflow(tmp_path: Path) -> None:
    """Not even where it is installed: a TensorFlow that cannot be imported stands in the way."""
    package = tmp_path / "fake" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('tensorflow was imported')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(package.parent))
        code, _, err = run(f"--workdir={tmp_path / 'W'}", *SMALL)
    assert code == 0, err
