"""Exports are opened as their cards say, where none of what made them is installed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import amd_jax
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.network import Network
from amd_jax.data.encode import encode
from tests.convert.conftest import as_ours, image_arch, mae_arch, run, video_arch
from tests.convert.test_timm import TIMM

MEAN, STD = (0.1, 0.5, 0.6), (0.5, 0.2, 0.3)
OURS = "amd_jax,flax,optax,orbax,grain,clu,ml_collections"
# 88 pixels of a picture of 2:3 that is resized to 100: even margins, where transformers cuts as we do.
ARCHS: dict[str, Network] = {
    "cls": image_arch(classes=5, grid=(1, 11, 11)),
    "mean": image_arch(classes=5, grid=(1, 11, 11), norm=False, fc_norm=True),
    "encoder": image_arch(grid=(1, 11, 11)),
    "oblong": image_arch(grid=(1, 6, 9)),
    "mae": mae_arch(grid=(1, 11, 11)),
    "video": video_arch(fc_norm_eps=1e-5),
    "video encoder": video_arch(classes=0, fc_norm=False, norm=True),
}
WITHOUT_JAX = [
    *(("timm", name) for name in ("cls", "mean", "encoder")),
    *(("hf", name) for name in ARCHS),
    *(("onnx", name) for name in ("mean", "encoder", "oblong", "video")),
]
WITH_JAX = [("stablehlo", name) for name in ("mean", "encoder", "oblong", "video")]


# With torchvision, transformers' own processors resize by it, which rounds other than Pillow at some pixels.
RESIZED_BY_TORCHVISION = [("hf", name) for name in ("cls", "encoder", "mae")]


def _inputs(folder: Path, resized: bool) -> None:
    """A picture, which a model of 88 pixels takes as it is or resized; and a video that stands still, so that
    it does not matter which frames somebody takes.
    """
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    size = (180, 120) if resized else (150, 100)
    small.resize(size, Image.Resampling.BICUBIC).save(folder / "image.png")
    (folder / "image.png").rename(folder / "image.jpg")  # without loss, and Pillow goes by what is in it
    frame = small.resize((32, 32), Image.Resampling.BICUBIC)
    for i in range(4):
        frame.save(folder / f"frame{i}.jpg", format="png")
    np.save(folder / "frames.npy", np.stack([np.asarray(frame)] * 4))
    (folder / "video.mp4").write_bytes(encode(np.stack([np.asarray(frame)] * 24), fps=10, gop=12))


def _ours(src: Path, arch: Network, inputs: Path, form: str) -> np.ndarray:
    model = amd_jax.load(str(src))
    video = "video.mp4" if form == "hf" and arch.classes else "frames.npy"
    given: Any = inputs / (video if arch.video else "image.jpg")
    given = np.load(given) if given.suffix == ".npy" else given
    return model.classify(given) if arch.classes else model.embed(given)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[np.ndarray, Any]]:
    """By format and weights: ours, and what the code of the card found."""
    for name in ("torch", "transformers", "onnxruntime", "jax2onnx", "av"):
        pytest.importorskip(name)
    if not TIMM.is_dir():
        pytest.skip("launch/test.sh installs timm")
    ours = tmp_path_factory.mktemp("ours")
    for name, arch in ARCHS.items():
        classes = tuple(f"class {i}" for i in range(arch.classes))
        as_ours(arch, ours / name, said=Stated(MEAN, STD, classes=classes))
    found = {}
    torchs, jaxs = (WITHOUT_JAX, f"{OURS},jax,jaxlib", str(TIMM)), (WITH_JAX, f"{OURS},torch", "")
    for cases, missing, timm in (torchs, jaxs):
        jobs = tmp_path_factory.mktemp("jobs")
        for form, name in cases:
            job = jobs / f"{form} {name}"
            assert run("export", ours / name, f"--format={form}", "--out", job) == 0
            _inputs(job, resized=(form, name) not in RESIZED_BY_TORCHVISION)
        program = str(Path(__file__).with_name("opening_process.py"))
        command = [sys.executable, program, missing, timm, str(jobs)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        for form, name in cases:
            theirs = json.loads((jobs / f"{form} {name}" / "answer.json").read_text())
            found[form, name] = _ours(ours / name, ARCHS[name], jobs / f"{form} {name}", form), theirs
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("form", "name"), [*WITHOUT_JAX, *WITH_JAX])
def test_the_code_of_a_card_finds_what_we_find(
    form: str, name: str, answers: dict[tuple[str, str], tuple[np.ndarray, Any]]
) -> None:
    ours, theirs = answers[form, name]
    if isinstance(theirs, dict):  # transformers' pipelines, by the names of the classes
        theirs = [[theirs[f"class {i}"] for i in range(ours.shape[1])]]
    assert ours.std() > 0.05  # it does see something
    # transformers and we decode a video each with a program of its own
    bound = 1e-4 if (form, name) == ("hf", "video") else 1e-5 * np.abs(ours).max()
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=bound)
