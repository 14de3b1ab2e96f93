"""A whole comparison from the command line: stopped, continued, refused when its plan changed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from amd_jax.compare import cell as cell_run
from amd_jax.compare.grid import Cell
from amd_jax.errors import ConfigError
from configs import compare_fashion, compare_saturation, compare_videos
from tests import QUICK
from tests.runs import ROOT

PLAN = """
from configs import compare_fashion

def get_config():
    plan = compare_fashion.get_config("smoke")
    plan.seeds, plan.labels, plan.ablation_labels = (0,), (1.0,), {"why": (1.0,)}
    for name in ("dmae75", "dmae95", "dmae98", "amd"):
        del plan.methods[name]
    longer, hard = {"of": "mae", "finetuning": {"steps": 12}}, {"of": "kd", "finetune": {"kd_hard": True}}
    plan.ablations = {"why": {"longer": longer, "hard": hard}}
    return plan
"""
# The teacher, scratch, mae, kd and hard kd, and they fine-tuned; mae fine-tuned for longer.
CELLS = 2 * 5 + 1


def start(folder: Path, *arguments: str, plan: str = PLAN, config: str = "") -> subprocess.Popen[str]:
    """The command on one device, in the project's root; `config` names a plan that is there."""
    (folder / "plan.py").write_text(plan)
    command = [sys.executable, "-m", "amd_jax.compare", f"--config={config or folder / 'plan.py'}"]
    return subprocess.Popen(
        [*command, f"--workdir={folder / 'W'}", *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": QUICK, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was_stopped_and_keeps_what_is_finished(tmp_path: Path) -> None:
    with start(tmp_path, "--jobs=2") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"[1/{CELLS}]")
        os.killpg(process.pid, signal.SIGTERM)  # as job schedulers do: the workers get it, too
        _, err = process.communicate()
    assert process.returncode == 75, err
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert 1 <= len(kept) < CELLS

    (tmp_path / "W" / "results.md").unlink()
    with start(tmp_path, "--jobs=0") as process:  # what there is, and no more
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(list(tmp_path.rglob("result.json"))) == len(kept)
    assert (tmp_path / "W" / "results.md").read_text() in out

    with start(tmp_path) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    finished = list(tmp_path.rglob("result.json"))
    assert len(finished) == CELLS
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    table = (tmp_path / "W" / "results.md").read_text()
    assert table in out
    assert "–" not in table.split("##")[1]  # every method has every score
    assert (tmp_path / "W" / "results.png").exists()

    with start(tmp_path, "--config.base.batch_size=32") as process:
        _, err = process.communicate()
    assert process.returncode == 2
    assert "batch_size=64, the plan now has 32" in err
    assert len(err.strip().splitlines()) == 1


DIVERGING = """
from configs import compare_fashion

def get_config():
    plan = compare_fashion.get_config("smoke")
    plan.seeds, plan.labels, plan.ablations = (0,), (1.0,), {}
    plan.methods = {"broken": plan.methods.mae, "scratch": plan.methods.scratch}
    plan.methods.broken.optim.base_lr = 1e30
    return plan
"""


@pytest.mark.slow
def test_a_run_that_diverges_does_not_keep_the_others_from_their_scores(tmp_path: Path) -> None:
    with start(tmp_path, plan=DIVERGING) as process:
        out, err = process.communicate()
    assert process.returncode == 3, err
    assert "1 of 6 cells diverged, the first broken/seed0: step" in err.splitlines()[-1]
    assert len(out.splitlines()) == 4  # the teacher, scratch, and they fine-tuned
    assert "| broken | – | – | – |" in (tmp_path / "W" / "results.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("plans", [compare_saturation, compare_videos], ids=lambda plans: plans.__name__)
def test_a_plan_with_lengths_and_teachers_runs_and_draws_its_curves(
    plans: ModuleType, tmp_path: Path
) -> None:
    with start(tmp_path, "--jobs=2", config=f"{plans.__file__}:smoke") as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    tables = (tmp_path / "W" / "results.md").read_text().split("\n## ")[1:]
    assert "–" not in "".join(table for table in tables if not table.startswith("Methods"))
    plan = plans.get_config("smoke")
    for picture in (*plan.curves, *plan.scatters):
        assert (tmp_path / "W" / f"{picture}.png").stat().st_size > 10_000


def test_git_is_not_needed_and_a_damaged_result_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert cell_run._setting().startswith("jax ")
    cell = Cell("mae", compare_fashion.get_config().base)
    assert cell_run.load(cell, tmp_path) is None
    (tmp_path / "mae").mkdir()
    (tmp_path / "mae" / "result.json").write_text("")
    with pytest.raises(ConfigError, match=r"result\.json: cannot be read"):
        cell_run.load(cell, tmp_path)


def test_a_run_that_was_begun_by_another_plan_does_not_go_on(tmp_path: Path) -> None:
    cell = Cell("mae", compare_fashion.get_config().base)
    (tmp_path / "mae").mkdir()
    (tmp_path / "mae" / "cell.json").write_text(json.dumps(cell.identity | {"loss.align": "l1"}))
    with pytest.raises(ConfigError, match=r"begun with loss\.align='l1', the plan now has 'l2'"):
        cell_run.run(cell, tmp_path, lambda: None)


WRONG = [
    (["--config.base.data.pth=x"], "did you mean base.data.path"),
    (["--config.base.mask.student_visible=50"], "50 of 49"),
    (["--jobs=-1"], "jobs"),
    (["--jobs=0"], "no such folder"),
    (["--workdir=gs://bucket/W"], "this is written to a disk"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_mistake_is_one_line_and_leaves_nothing(arguments: list[str], words: str, tmp_path: Path) -> None:
    with start(tmp_path, *arguments) as process:
        _, err = process.communicate()
    assert process.returncode == 2, err
    assert words in err.splitlines()[-1]
    assert not (tmp_path / "W").exists()
