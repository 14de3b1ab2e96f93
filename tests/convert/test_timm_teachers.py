"""Teachers that timm saves give its layers here; timm runs in a process of its own (see launch/test.sh)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amd_jax.convert.files.opening import open_source
from amd_jax.convert.kinds import recognise
from amd_jax.errors import WeightsError
from tests.convert.test_teachers import MEAN, STD, check, configured, features, inputs, normalised
from tests.convert.test_timm import TIMM

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 0}
EIGHT = {**SMALL, "img_size": 32, "patch_size": 8}
SEVEN = {**SMALL, "img_size": 28, "patch_size": 7}
# By name, an architecture of timm and what makes it small.
TEACHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("vit_base_patch16_clip_quickgelu_224", EIGHT),
    "openclip": ("vit_base_patch16_clip_224", {**EIGHT, "num_classes": 7}),
    "siglip": ("vit_base_patch16_siglip_224", EIGHT),
    "siglip2": ("vit_so400m_patch16_siglip_256", {**EIGHT, "mlp_ratio": 4}),
    "dinov2": ("vit_base_patch14_dinov2", SEVEN),
    "dinov2_registers": ("vit_base_patch14_reg4_dinov2", SEVEN),
    "dinov2_giant": ("vit_giant_patch14_reg4_dinov2", {**SEVEN, "mlp_ratio": 8}),
    "dinov3": ("vit_base_patch16_dinov3", EIGHT),
    "dinov3_plus": ("vit_small_plus_patch16_dinov3_qkvb", EIGHT),
    "augreg": ("vit_base_patch16_224", EIGHT),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each teacher, with what timm's layers make of it. timm starts once for all of them."""
    if not TIMM.is_dir():
        pytest.skip("launch/test.sh installs timm")
    root = tmp_path_factory.mktemp("teachers")
    pixels, _, at = inputs(side=5, seen=7)
    for name, teacher in TEACHERS.items():
        (root / name).mkdir()
        (root / name / "teacher.json").write_text(json.dumps(teacher))
        patch = teacher[1]["patch_size"]
        np.save(root / name / "pixels.npy", normalised(pixels, 5 * patch, "bicubic").numpy())
        np.save(root / name / "at.npy", at)
    command = [sys.executable, str(Path(__file__).with_name("timm_process.py")), str(TIMM), str(root)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return root


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_subset_of_tokens_at_another_resolution_is_timms(teacher: str, root: Path) -> None:
    """5 x 5 tokens of a model of 4 x 4, positions interpolated as timm does where it loads such weights."""
    pixels_as = {"teacher__mean": MEAN, "teacher__std": STD}
    config = configured(str(root / teacher), data__image_size=40, align__teacher_layers=(2, 3), **pixels_as)
    pixels, masks, _ = inputs(side=5, seen=7)
    theirs = np.load(root / teacher / "theirs.npz")
    assert config.teacher.norm_eps == theirs["eps"]
    check(features(config, pixels, masks), [theirs[str(i)] for i in (1, 2, 3)], config.teacher.cls_token)


def test_weights_alone_do_not_say_an_activation(root: Path) -> None:
    with pytest.raises(WeightsError, match="give the whole folder"):
        recognise(open_source(str(root / "dinov2" / "model.safetensors")))
