"""The pixels that a teacher sees: a key wins over what its files say, and they over the student's."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from amd_jax.convert.files.stated import Stated
from amd_jax.convert.network import Network
from amd_jax.errors import UserError
from amd_jax.models import build
from amd_jax.train import setup
from amd_jax.train.program import Program
from amd_jax.train.weights import with_teacher_pixels
from amd_jax.workdir import load_config, save_config
from configs import finetune_vitb_in1k
from tests.convert.conftest import as_ours, published, run
from tests.runs import tiny

HALF = (0.5, 0.5, 0.5)
CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "pretrained_cfg": {"mean": HALF, "std": HALF, "input_size": [3, 48, 48], "interpolation": "bilinear"},
}


def _arch(config: ConfigDict) -> Network:
    """The teacher that the config asks for."""
    encoder = build.encoder(config, "teacher")
    return Network(encoder, build.patch(config), config.data.channels, video=False)


def _timm(folder: Path, content: Any = CONFIG) -> str:
    """A teacher for the smoke run as timm keeps it; without `content` its weights alone."""
    folder.mkdir()
    save_file(published(_arch(tiny())) | _learned(), folder / "model.safetensors")
    if content:
        (folder / "config.json").write_text(json.dumps(content))
    return str(folder)


def _learned() -> dict[str, Any]:
    import numpy as np

    arch = _arch(tiny())
    return {"pos_embed": np.ones((1, arch.encoder.tokens + 1, arch.encoder.block.width), np.float32)}


def _taught(weights: str, **changes: Any) -> ConfigDict:
    return tiny(teacher__weights=weights, teacher__random=False, teacher__positions="learned", **changes)


def test_what_the_files_say_fills_the_keys_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _taught(_timm(tmp_path / "timm"))
    filled = with_teacher_pixels(config)
    assert (filled.teacher.mean, filled.teacher.std) == (HALF, HALF)
    assert config.teacher.mean == ()  # the caller's stays as it was
    assert (filled.data.mean, filled.data.std) == (config.data.mean, config.data.std)
    out = capsys.readouterr().out
    assert f"as {tmp_path / 'timm' / 'config.json'} says" in out
    assert "48x48 pixels (here 32x32)" in out
    assert "bilinear resizing (here bicubic)" in out


def test_a_key_wins_over_the_files(tmp_path: Path) -> None:
    filled = with_teacher_pixels(_taught(_timm(tmp_path / "timm"), teacher__mean=(0.1, 0.2, 0.3)))
    assert (filled.teacher.mean, filled.teacher.std) == ((0.1, 0.2, 0.3), HALF)


def test_a_teacher_of_other_patches_sees_images_resized_as_its_files_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _timm(tmp_path / "timm")
    filled = with_teacher_pixels(_taught(weights, teacher__patch_size=7))
    assert filled.teacher.resize == "bilinear"
    out = capsys.readouterr().out
    assert "resized to 28x28 pixels, bilinear" in out
    assert "48x48 pixels (here 28x28)" in out
    set_by_hand = {"teacher__patch_size": 7, "teacher__resize": "bicubic"}
    assert with_teacher_pixels(_taught(weights, **set_by_hand)).teacher.resize == "bicubic"
    assert with_teacher_pixels(_taught(weights)).teacher.resize == ""


def test_the_same_from_a_folder_that_it_was_imported_to(tmp_path: Path) -> None:
    assert run("import", _timm(tmp_path / "timm"), "--out", tmp_path / "ours") == 0
    assert with_teacher_pixels(_taught(str(tmp_path / "ours"))).teacher.mean == HALF


def test_a_run_of_ours_says_its_own(tmp_path: Path) -> None:
    save_config(str(tmp_path), tiny(data__mean=(0.1, 0.2, 0.3)))
    (tmp_path / "checkpoints").mkdir()
    assert with_teacher_pixels(_taught(str(tmp_path))).teacher.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("imported", [False, True])
def test_what_nobody_says_is_assumed_and_said_so(
    imported: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _timm(tmp_path / "timm", content=None)
    if imported:
        assert run("import", weights, "--out", tmp_path / "ours") == 0
        weights = str(tmp_path / "ours")
    config = _taught(weights)
    assert with_teacher_pixels(config).teacher.mean == config.data.mean
    out = capsys.readouterr().out
    assert "assumed: the teacher saw pixels of mean 0.485, 0.456, 0.406" in out
    assert "--config.teacher.mean" in out
    with_teacher_pixels(_taught(weights, teacher__mean=HALF, teacher__std=HALF))
    assert "assumed" not in capsys.readouterr().out


def test_kinds_that_all_saw_imagenets_pixels_need_no_assumption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(published(_arch(tiny())), tmp_path / "mae.safetensors")
    config = tiny(teacher__weights=str(tmp_path / "mae.safetensors"), teacher__random=False)
    assert with_teacher_pixels(config).teacher.mean == config.data.mean
    assert capsys.readouterr().out == ""


def test_pixels_of_another_number_of_channels_are_one_line(tmp_path: Path) -> None:
    grey = {"data__channels": 1, "data__mean": (0.3,), "data__std": (0.3,)}
    with pytest.raises(UserError, match=r"mean for 3 channels, but data\.channels=1; set") as caught:
        with_teacher_pixels(_taught(_timm(tmp_path / "timm"), **grey))
    assert "\n" not in str(caught.value)


def _prepare(config: ConfigDict, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> setup.Run:
    """Everything but the compilation, on one device."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)
    compiled = SimpleNamespace(memory_analysis=lambda: None)
    monkeypatch.setattr(Program, "lower", lambda self: SimpleNamespace(compile=lambda: compiled))
    return setup.prepare(config, str(workdir))


def test_the_run_computes_with_them_and_records_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = _timm(tmp_path / "timm")
    prepared = _prepare(_taught(weights, loss__align="sml1"), tmp_path / "run", monkeypatch)
    task: Any = prepared.program.task
    assert (task.teacher_mean, task.mean) == (HALF, prepared.config.data.mean)
    saved = load_config(str(tmp_path / "run"))
    assert saved["teacher"]["mean"] == list(HALF)
    assert saved["loss"]["align"] == "smooth_l1"
    other = _prepare(_taught(weights, teacher__mean=(0.1, 0.2, 0.3)), tmp_path / "other", monkeypatch)
    assert other.order["teacher"] != prepared.order["teacher"]  # so neither goes on where the other was
    plain = {"teacher__mean": (0.485, 0.456, 0.406), "teacher__std": (0.229, 0.224, 0.225)}
    same = _prepare(_taught(weights, **plain), tmp_path / "same", monkeypatch)
    (tmp_path / "timm" / "config.json").unlink()
    before = _prepare(_taught(weights), tmp_path / "before", monkeypatch)
    assert same.order["teacher"] == before.order["teacher"]


def test_student_of_other_pixels_is_told_the_keys_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = finetune_vitb_in1k.get_config("smoke")
    arch = Network(build.encoder(config, "student"), build.patch(config), config.data.channels, video=False)
    said = Stated((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), origin="somewhere")
    config.student.weights = str(as_ours(arch, tmp_path / "ours", said=said))
    prepared = _prepare(config, tmp_path / "run", monkeypatch)
    out = capsys.readouterr().out
    assert "--config.data.mean=0.1,0.2,0.3 --config.data.std=0.4,0.5,0.6" in out
    assert prepared.config.data.mean == (0.485, 0.456, 0.406)
    names = json.loads((tmp_path / "run" / "classes.json").read_text())
    assert names[0] == "T-shirt/top"
    assert len(names) == 10
