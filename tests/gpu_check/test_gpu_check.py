"""The checks for a GPU run as a whole on a CPU, and say what differs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amd_jax.errors import ConfigError
from amd_jax.gpu_check import __main__ as gpu_check
from amd_jax.gpu_check import recorded, repeated, speed
from amd_jax.gpu_check.cudnn import shapes
from amd_jax.gpu_check.five_steps import CONFIGS, TOLERANCES, config_of
from amd_jax.gpu_check.rows import DIFFERS, FAILED, OK, SKIPPED, Row, Setting, judged, read
from amd_jax.train.validate import validate
from tests.runs import ROOT


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_and_finds_no_difference(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = ["bash", "launch/gpu_check.sh", "--cpu", "--methods=mae", "--minutes=60", f"--json={file}"]
    command += ["--checks=steps,repeated,attention,speed"]  # the recorded cases are replayed elsewhere
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no accelerator: small sizes on the CPU" in done.stdout
    rows = [Row(**row) for row in json.loads(file.read_text())]
    assert not [row for row in rows if row.result in (DIFFERS, FAILED, SKIPPED)]
    counts = {check: sum(row.check == check for row in rows) for check in {row.check for row in rows}}
    assert counts == {
        "device": 1, "attention": 3, "five steps": len(TOLERANCES), "repeated": 2, "speed": 1,
    }  # fmt: skip


def test_a_recorded_case_is_judged_by_its_worst_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorded, "GOLDENS", tmp_path)
    setting = Setting(full=False, out=tmp_path / "rows")
    recorded.check(setting)
    (tmp_path / "a.safetensors").symlink_to(ROOT / "tests" / "goldens" / "mae_image.safetensors")
    for errors in ({"out/pred": 1e-6, "grad/x": 1e-6}, {"out/pred": 1e-6, "grad/x": 1.0}):
        monkeypatch.setattr(recorded, "errors", lambda case, errors=errors: errors)
        recorded.check(setting)
    assert [row.result for row in read(setting.out)] == [SKIPPED, OK, DIFFERS]


def test_what_has_no_time_left_is_skipped_and_what_dies_is_told(tmp_path: Path) -> None:
    late = gpu_check.Starter({}, until=0.0, folder=tmp_path)
    assert [row.result for row in late.run("goldens")] == [SKIPPED]
    ill = gpu_check.Starter({**os.environ, "JAX_PLATFORMS": "none"}, until=1e12, folder=tmp_path)
    (row,) = ill.run("device")
    assert (row.result, row.text, row.bad) == (FAILED, "its process ended with 1", True)


def test_the_command_fails_where_something_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"device": Row("device", "cpu", "measured", "", {"platform": "cpu"})}
    bad = Row("steps", "mae", DIFFERS, "loss 1.0 of 0.001")
    monkeypatch.setattr(gpu_check.Starter, "run", lambda self, name, *_, **__: [rows.get(name, bad)])
    assert gpu_check.main([]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_an_error_above_its_tolerance_differs_and_so_does_what_is_no_number() -> None:
    assert judged([(1e-3, 1e-2), (0.0, 0.0)]) == OK
    assert judged([(1e-3, 1e-2), (2e-2, 1e-2)]) == DIFFERS
    assert judged([(float("nan"), 1e-2)]) == DIFFERS


def test_two_processes_are_compared_by_the_bits_of_their_parameters() -> None:
    one, same, other = ([Row("repeated", "", OK, "", {"sum": s})] for s in ("a", "a", "b"))
    assert [row.result for row in repeated.across(one, same)] == [OK]
    assert [row.result for row in repeated.across(one, other)] == [DIFFERS]
    assert repeated.across(one, []) == []


def test_rows_stay_when_their_process_dies(tmp_path: Path) -> None:
    setting = Setting(full=False, out=tmp_path / "rows")
    assert read(setting.out) == []
    setting.add("goldens", "mae_image", OK, "fine", {"out/pred": 1e-7})
    assert read(setting.out) == [Row("goldens", "mae_image", OK, "fine", {"out/pred": 1e-7})]


@pytest.mark.parametrize("full", [False, True])
def test_every_method_has_a_valid_config_in_either_size(full: bool) -> None:
    assert tuple(CONFIGS) == gpu_check.METHODS
    for method in CONFIGS:
        validate(config_of(method, full))


def test_attention_is_compared_in_the_shapes_of_the_published_configs() -> None:
    found = dict(shapes(full=True))
    assert found["vitb_in1k student"] == (64, 50, 12, 64)
    assert found["vitb_in1k decoder"] == (64, 197, 6, 64)
    assert found["vitb_k400 decoder"] == (8, 1568, 6, 64)


@pytest.mark.parametrize(
    ("room", "expected"),
    [(100.0, 64), (64.0, 64), (3.0, 0)],  # 0.85 of it, in which an example takes 1 after a constant of 2
)
def test_the_largest_batch_lies_on_a_line_and_below_the_most(
    room: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("mae", full=False)
    monkeypatch.setattr(speed, "_memory", lambda config, mesh, batch: 2 + batch)
    monkeypatch.setattr(speed.preflight, "device_memory", lambda mesh: room)
    if expected:
        assert speed.largest_batch(config, most=64) == np.clip((0.85 * room - 2) // 32 * 32, 0, 64)
    else:
        with pytest.raises(ConfigError, match="32 examples need"):
            speed.largest_batch(config, most=64)


def test_a_batch_that_has_no_room_after_all_is_halved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = []

    def measure(wanted: Any, *rest: Any) -> Any:
        tried.append(wanted[0][1].batch_size)
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory") if tried[-1] > 4 else ValueError("another")

    monkeypatch.setattr(speed, "measure", measure)
    with pytest.raises(ValueError, match="another"):
        speed.check(Setting(full=False, out=tmp_path / "rows"), speed.VARIANTS[0].name)
    assert tried == [8, 4]


def test_every_variant_has_its_name() -> None:
    assert len({variant.name for variant in speed.VARIANTS}) == len(speed.VARIANTS)
