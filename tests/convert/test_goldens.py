"""Recorded cases of the published implementations, and how their replay reports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from amd_jax.convert.verify import REPLAYS, Case, errors, passes
from amd_jax.models import blocks
from amd_jax.models.attention import attend
from tests.convert.conftest import run

GOLDENS = sorted((Path(__file__).parents[1] / "goldens").glob("*.safetensors"))


def _change(
    golden: Path, out: Path, sizes: dict, arrays: dict[str, np.ndarray], drop: tuple[str, ...] = ()
) -> str:
    """A golden with other sizes and arrays."""
    with safe_open(golden, "np") as file:
        old = json.loads(file.metadata()["config"])
    kept = (
        {k: v for k, v in load_file(golden).items() if not k.startswith(drop)} if drop else load_file(golden)
    )
    save_file(kept | arrays, out, metadata={"config": json.dumps(old | sizes)})
    return str(out)


def _golden(kind: str) -> Path:
    return next(path for path in GOLDENS if path.stem == kind)


def _replayed(path: str) -> dict[str, np.ndarray]:
    """What we compute for sizes that nobody recorded."""
    case = Case.load(path)
    computed = {name: np.asarray(value) for name, value in REPLAYS[case.kind](case).items()}
    assert all(np.isfinite(value).all() for value in computed.values())
    return computed


@pytest.mark.parametrize("attention", ["xla", "heads"])
@pytest.mark.parametrize("golden", GOLDENS, ids=lambda p: p.stem)
def test_golden_is_reproduced(golden: Path, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "attend", lambda q, k, v, _: attend(q, k, v, attention))
    found = errors(Case.load(str(golden)))
    assert len(found) > 40
    bad = {name: error for name, error in found.items() if not passes(name, error)}
    assert not bad


def test_command_prints_every_error_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", _golden("mae_image")) == 0
    out = capsys.readouterr().out
    assert "grad/blocks.0.attn.qkv.weight" in out
    assert out.strip().endswith("within tolerance")
    assert "passed" in out


@pytest.mark.parametrize("name", ["out/pred", "grad/decoder_pred.bias", "model/blocks.1.mlp.fc1.weight"])
def test_changed_number_fails_with_exit_code_1(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = _golden("mae_image")
    array = load_file(golden)[name].copy()
    array.reshape(-1)[0] += 0.1
    path = _change(golden, tmp_path / "x.safetensors", {}, {name: array})
    assert run("verify", path) == 1
    assert "FAILED" in capsys.readouterr().out


def test_nan_is_out_of_tolerance() -> None:
    assert not passes("out/loss", float("nan"))


@pytest.mark.parametrize("missing", ["in/mask", "model/norm.weight", "model/blocks.1.", "in/images"])
def test_incomplete_case_is_one_line_and_exit_code_2(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _change(_golden("mae_image"), tmp_path / "x.safetensors", {}, {}, drop=(missing,))
    assert run("verify", path) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error


def test_case_without_recorded_results_does_not_pass(tmp_path: Path) -> None:
    path = _change(_golden("mae_image"), tmp_path / "x.safetensors", {}, {}, drop=("out/", "grad/"))
    assert run("verify", path) == 2


def test_dmae_with_two_heads_in_any_spelling_of_the_distance(tmp_path: Path) -> None:
    golden = _golden("dmae_image")
    weights = load_file(golden)
    head = {
        name.replace("heads.0", "heads.1"): array[::-1].copy()
        for name, array in weights.items()
        if name.startswith("student/aligned_feature")
    }
    sizes = {"student_blocks": [2, 0], "teacher_blocks": [4, 1], "align_loss": "MSE", "norm_pix": True}
    path = _change(golden, tmp_path / "x.safetensors", sizes, head, drop=("out/", "grad/"))
    computed = _replayed(path)
    parts = [computed[f"out/{name}"] for name in ("loss_rec", "loss_align_block0", "loss_align_block2")]
    assert np.allclose(computed["out/loss"], sum(parts))


@pytest.mark.parametrize("spelling", ["smooth_l1", "sml1"])
def test_amd_with_lists_of_different_lengths_and_zero_weights(spelling: str, tmp_path: Path) -> None:
    sizes = {
        "student_layers_direct": [1],
        "teacher_layers_direct": [2],
        "student_layers_gen": [2, 3],
        "teacher_layers_gen": [1, 6],
        "direct_weight": 0.0,
        "align_loss": spelling,
    }
    path = _change(_golden("amd_video"), tmp_path / "x.safetensors", sizes, {}, drop=("out/", "grad/"))
    computed = _replayed(path)
    assert "out/student_gen.1" in computed
    assert "out/student_direct.1" not in computed
    assert np.allclose(computed["out/loss"], computed["out/loss_mae"] + computed["out/loss_gen"])


@pytest.mark.slow
def test_verify_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "amd_jax.convert", "verify", str(_golden("video_classifier"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
