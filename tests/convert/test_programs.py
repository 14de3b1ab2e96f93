"""Exported programs compute what we compute, for any batch, and say what they are."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import amd_jax
from amd_jax.convert.cli import FORMATS, OUTPUTS
from amd_jax.convert.exporting import FORMATS as MADE
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.formats import onnx_file
from amd_jax.convert.forward import PARTS
from amd_jax.convert.network import Network
from tests.convert.conftest import as_ours, image_arch, mae_arch, run, video_arch

SAID = Stated((0.1, 0.5, 0.6), (0.5, 0.2, 0.3), classes=tuple("abcde"))
ARCHS: dict[str, Network] = {
    "cls": image_arch(classes=5),
    "mean": image_arch(classes=5, norm=False, fc_norm=True, positions="learned"),
    "video": video_arch(),
    "pre-training": mae_arch(),
}


def _pixels(arch: Network, batch: int) -> np.ndarray:
    frames = [4] if arch.video else []
    return np.random.default_rng(batch).integers(0, 256, (batch, *frames, 32, 32, 3), np.uint8)


def _ours(src: Path, what: str, pixels: np.ndarray) -> np.ndarray:
    """`classify`, `embed` or `tokens` of pixels that are the model's own, not to be cropped or sampled."""
    views = pixels[:, None] if pixels.ndim == 5 else pixels[:, None, None]
    return amd_jax.load(str(src)).run(what, views)


def _session(folder: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(folder / "model.onnx")


def _export(src: Path, form: str, out: Path, *more: str) -> dict[str, Any]:
    """Exports; returns what the program says of itself."""
    if form == "onnx":
        pytest.importorskip("jax2onnx")
    assert run("export", src, f"--format={form}", "--out", out, *more) == 0
    about: dict[str, Any] = json.loads((out / "model.json").read_text())
    return about


@pytest.mark.parametrize("name", ARCHS)
def test_onnx_runtime_gives_our_outputs_at_any_batch(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    arch = ARCHS[name]
    src = as_ours(arch, tmp_path / "ours", said=SAID)
    about = _export(src, "onnx", tmp_path / "out")
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"), full_check=True)
    capfd.readouterr()
    session = _session(tmp_path / "out")
    assert capfd.readouterr().err == ""  # a runtime that warns at each start
    said = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in said.items()} == about
    assert [value.shape for value in session.get_inputs()] == [about["input"]["shape"]]
    assert [value.shape for value in session.get_outputs()] == [about["output"]["shape"]]
    for batch in (1, 2, 5):
        pixels = _pixels(arch, batch)
        (theirs,) = session.run([about["output"]["name"]], {about["input"]["name"]: pixels})
        if arch.classes:
            theirs = np.asarray(jax.nn.softmax(theirs))
        ours = _ours(src, "classify" if arch.classes else "embed", pixels)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("name", ARCHS)
def test_a_stablehlo_program_gives_our_tokens_at_any_batch(name: str, tmp_path: Path) -> None:
    from jax import export

    arch = ARCHS[name]
    src = as_ours(arch, tmp_path / "ours", said=SAID)
    _export(src, "stablehlo", tmp_path / "out", "--output=tokens")
    program = export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    weights = dict(np.load(tmp_path / "out" / "weights.npz"))
    assert {name.split("/")[0] for name in weights} == {"encoder"}  # the tokens need no others
    for batch in (2, 5):
        pixels = _pixels(arch, batch)
        ours = _ours(src, "tokens", pixels)
        np.testing.assert_allclose(program.call(weights, pixels), ours, atol=1e-6 * np.abs(ours).max())


@pytest.mark.parametrize("output", ["embedding", "tokens"])
def test_a_classifier_can_be_asked_for_what_comes_before_its_head(output: str, tmp_path: Path) -> None:
    arch = ARCHS["mean"]
    src = as_ours(arch, tmp_path / "ours", said=SAID)
    _export(src, "onnx", tmp_path / "out", f"--output={output}")
    pixels = _pixels(arch, 2)
    (theirs,) = _session(tmp_path / "out").run(None, {"pixels": pixels})
    ours = _ours(src, "embed" if output == "embedding" else output, pixels)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.abs(ours).max())


def test_what_is_said_of_pixels_is_what_a_loaded_model_does(tmp_path: Path) -> None:
    said = Stated((0.5,) * 3, (0.25,) * 3, (64, 64), "bilinear", resize=(80,))
    src = as_ours(image_arch(), tmp_path / "ours", said=said)
    about, prepare = _export(src, "stablehlo", tmp_path / "out"), amd_jax.load(str(src)).prepare
    steps = about["preprocessing"]
    assert (steps["resize"], steps["interpolation"], steps["crop"]) == ([40], "bilinear", [32, 32])
    assert (prepare.resize, prepare.interpolation, prepare.size) == ((40,), "bilinear", (32, 32))
    assert about["normalisation_inside"] == {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.mark.parametrize(
    ("form", "more", "says"),
    [
        ("hf", ["--output=tokens"], "--output=tokens: --format=hf holds weights"),
        ("stablehlo", ["--output=logits"], "these weights have no classes"),
    ],
)
def test_an_output_that_there_is_not_is_one_line(
    form: str, more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = as_ours(image_arch(), tmp_path / "ours")
    assert run("export", src, f"--format={form}", "--out", tmp_path / "out", *more) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_without_jax2onnx_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    assert run("export", as_ours(image_arch(), tmp_path / "ours"), "--format=onnx", "--dry_run") == 2
    error = capsys.readouterr().err.strip()
    assert "pip install --no-deps jax2onnx" in error
    assert "\n" not in error
    needs = (Path(__file__).parents[2] / "requirements-export.txt").read_text()
    assert onnx_file.INSTALL.rsplit(" ", 1)[-1] in needs  # of the same version


def test_more_weights_than_a_protocol_buffer_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax2onnx")
    monkeypatch.setattr(onnx_file, "_MOST_BYTES", 1000)
    assert run("export", as_ours(image_arch(), tmp_path / "ours"), "--format=onnx", "--dry_run") == 2
    assert "take --format=stablehlo" in capsys.readouterr().err


def test_the_command_line_knows_every_format_and_output() -> None:
    assert set(FORMATS) == set(MADE)
    assert set(OUTPUTS) == set(PARTS)
