"""Live parity with timm: what it makes of our exports, in a process of its own (see launch/test.sh)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import amd_jax
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.load import load_classifier, load_encoder
from amd_jax.convert.network import Network
from amd_jax.data.transforms import resize_center_crop
from amd_jax.models.blocks import layer_norm
from amd_jax.models.patches import normalize, patchify
from amd_jax.models.vit import ViT
from tests.convert.conftest import as_ours, image_arch, run

TIMM = Path(sys.prefix) / "timm"
TOLERANCE = 1e-5  # of the largest value
MEAN, STD = (0.1, 0.5, 0.6), (0.5, 0.2, 0.3)

MEAN_POOL = {"norm": False, "fc_norm": True}
CASES: dict[str, Network] = {
    "mean": image_arch(classes=7, **MEAN_POOL),
    "mean, learned positions": image_arch(classes=7, positions="learned", **MEAN_POOL),
    "mean, without a CLS token": image_arch(classes=7, cls_token=False, **MEAN_POOL),
    "mean, one channel, odd size": image_arch(
        classes=3, channels=1, patch=(1, 7, 7), grid=(1, 5, 5), **MEAN_POOL
    ),
    "mean, without a head": image_arch(**MEAN_POOL),
    "mean, wide": image_arch(classes=7, grid=(1, 3, 5), positions="learned", **MEAN_POOL),
    "cls, tall, with a margin": image_arch(patch=(1, 16, 16), grid=(1, 6, 5)),
    "cls": image_arch(classes=7),
    "cls, one channel": image_arch(classes=7, channels=1),
    "cls, odd size with a margin": image_arch(classes=2, patch=(1, 9, 9), grid=(1, 11, 11)),
    "cls, without a head": image_arch(),
    "cls, without a head, above 224": image_arch(patch=(1, 16, 16), grid=(1, 15, 15)),
}


# Of the preprocessing that timm's config.json states.
VARIANTS: list[dict[str, Any]] = [
    {"crop_pct": 0.8, "interpolation": "bilinear"},
    {"crop_pct": 0.9, "crop_mode": "squash"},
    {"crop_pct": 1.0, "interpolation": "lanczos"},
]


def _said(arch: Network) -> Stated:
    c = arch.channels
    return Stated(MEAN[:c], STD[:c], classes=tuple(f"class {i}" for i in range(arch.classes)))


def _pixels(arch: Network) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, *arch.size, arch.channels), np.uint8)


def _photo(arch: Network) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (300, 411, arch.channels), np.uint8)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """By case: the imported folder, and what timm makes of its export. timm starts once for all of them."""
    if not TIMM.is_dir():
        pytest.skip("launch/test.sh installs timm")
    ours, jobs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("jobs")
    for i, arch in enumerate(CASES.values()):
        job = jobs / str(i)
        src = as_ours(arch, ours / str(i), said=_said(arch))
        assert run("export", src, "--format=timm", "--out", job) == 0
        np.save(job / "pixels.npy", _pixels(arch))
        np.save(job / "photo.npy", _photo(arch))
        (job / "variants.json").write_text(json.dumps(VARIANTS if i == 0 else []))
    command = [sys.executable, str(Path(__file__).with_name("timm_process.py")), str(TIMM), str(jobs)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {case: (ours / str(i), np.load(jobs / str(i) / "theirs.npz")) for i, case in enumerate(CASES)}


def _ours(src: Path, arch: Network) -> np.ndarray:
    """Our logits; without a head what it would read."""
    x = normalize(patchify(jnp.asarray(_pixels(arch))[:, None], arch.patch), *_normalisation(arch))
    at = jnp.broadcast_to(jnp.arange(arch.encoder.tokens), x.shape[:2])
    if arch.classes:
        loaded = load_classifier(str(src), arch.classifier(), arch.patch, arch.channels)
        assert not loaded.new
        return np.asarray(arch.classifier().apply({"params": loaded.params}, x, at))
    tokens = _tokens(src, arch, x, at)
    if not arch.fc_norm:
        return tokens[:, 0]
    from safetensors.numpy import load_file

    file = load_file(src / "weights.safetensors")
    params = {"scale": file["fc_norm/scale"], "bias": file["fc_norm/bias"]}
    return np.asarray(layer_norm("fc_norm", 1e-6).apply({"params": params}, tokens[:, 1:].mean(axis=1)))


def _normalisation(arch: Network) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return MEAN[: arch.channels], STD[: arch.channels]


def _tokens(src: Path, arch: Network, x: jax.Array, at: jax.Array) -> np.ndarray:
    config = arch.encoder
    loaded = load_encoder(str(src), config, arch.patch, arch.channels, final_norm=arch.norm)
    return np.asarray(ViT(config, arch.norm).apply({"params": loaded.params}, x, at)[0])


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("case", CASES)
def test_timm_gives_our_logits(case: str, answers: dict[str, tuple[Path, Any]]) -> None:
    src, theirs = answers[case]
    assert _error(_ours(src, CASES[case]), theirs["logits"]) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_timm_gives_our_features(case: str, answers: dict[str, tuple[Path, Any]]) -> None:
    (src, theirs), arch = answers[case], CASES[case]
    x = normalize(patchify(jnp.asarray(_pixels(arch))[:, None], arch.patch), *_normalisation(arch))
    at = jnp.broadcast_to(jnp.arange(arch.encoder.tokens), x.shape[:2])
    assert _error(_tokens(src, arch, x, at), theirs["features"]) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_timms_evaluation_transform_is_our_crop_and_normalisation(
    case: str, answers: dict[str, tuple[Path, Any]]
) -> None:
    arch = CASES[case]
    mean, std = (np.array(x, np.float32) for x in _normalisation(arch))
    ours = (resize_center_crop(_photo(arch), arch.size) / np.float32(255) - mean) / std
    np.testing.assert_allclose(answers[case][1]["transformed"].transpose(1, 2, 0), ours, atol=1e-5)


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
def test_a_model_is_shown_what_timms_transform_shows_it(
    variant: int, answers: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    case, arch = next(iter(CASES.items()))
    src, theirs = answers[case]
    assert run("export", src, "--format=timm", "--out", tmp_path / "timm") == 0
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    config["pretrained_cfg"] |= VARIANTS[variant]
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config))
    model = amd_jax.load(str(tmp_path / "timm"))
    mean, std = (np.array(x, np.float32) for x in _normalisation(arch))
    ours = (model.prepare(_photo(arch))[0, 0] / np.float32(255) - mean) / std
    np.testing.assert_allclose(theirs[f"variant{variant}"].transpose(1, 2, 0), ours, atol=1e-5)


@pytest.mark.parametrize("case", ["mean", "cls, without a head"])
def test_timm_knows_the_names_of_the_classes(case: str, answers: dict[str, tuple[Path, Any]]) -> None:
    names = list(_said(CASES[case]).classes) or None
    assert json.loads(str(answers[case][1]["names"])) == names
