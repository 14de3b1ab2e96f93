"""Import(export(x)) is x, bit for bit, for every kind, format and size; and exports are what they claim."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from amd_jax.convert import describe
from amd_jax.convert.files.opening import open_source
from amd_jax.convert.files.tensors import read_safetensors
from amd_jax.convert.kinds import recognise
from amd_jax.convert.network import Network, parameter_shapes
from amd_jax.models.masking import Masks
from amd_jax.models.vit import ViT
from amd_jax.trees import flatten
from tests.convert.conftest import (
    align,
    amd_arch,
    as_ours,
    decoder,
    image_arch,
    imported,
    mae_arch,
    published,
    random_params,
    run,
    stack,
    video_arch,
)

VIDEO_PRETRAIN = dataclasses.replace(amd_arch(), align=None)
CASES: dict[str, Network] = {
    "mae_encoder": image_arch(),
    "mae_full": mae_arch(),
    "mae_finetuned cls": image_arch(classes=7),
    "mae_finetuned mean": image_arch(classes=7, norm=False, fc_norm=True),
    "timm learned positions": image_arch(positions="learned", classes=7),
    "no cls token": image_arch(cls_token=False, norm=False, fc_norm=True, classes=3),
    "videomae_finetuned": video_arch(),
    "videomae_pretrain": VIDEO_PRETRAIN,
    "amd_pretrain": amd_arch(),
    "dmae_pretrain": mae_arch(align=align(24, 2, True)),
    "dmae_pretrain with MLPs": mae_arch(align=align(24, 2, True, mlps=1)),
    "dmae_pretrain with two MLPs each": mae_arch(align=align(24, 2, True, mlps=2)),
    "mae_full without the bias that AMD's decoder lacks": mae_arch(
        decoder=decoder(stack(16, 2, 2, 64), False, "sincos_2d")
    ),
    "learned positions in a video": video_arch(positions="learned"),
    "videomae_finetuned wide": video_arch(grid=(2, 2, 8)),
}


def _exportable(arch: Network, form: str) -> bool:
    if form == "timm":
        return not arch.video
    if form == "hf":
        if arch.video:
            return arch.encoder.positions == "sincos_1d"
        return arch.decoder is None or arch.encoder.cls_token  # without a decoder it can be timm's
    return True


@pytest.mark.parametrize("form", ["official", "hf", "timm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("arch", CASES.values(), ids=CASES)
def test_import_of_export_is_the_same_bits(arch: Network, form: str, dtype: Any, tmp_path: Path) -> None:
    params = random_params(arch, dtype=dtype)
    as_ours(arch, tmp_path / "a", params)
    code = run("export", tmp_path / "a", f"--format={form}", "--out", tmp_path / "b")
    assert code == (0 if _exportable(arch, form) else 2)
    if code:
        return
    assert run("import", tmp_path / "b", "--out", tmp_path / "c") == 0
    back = read_safetensors(str(tmp_path / "c" / "weights.safetensors")).arrays
    left = {k for k in params if form != "official" and k.startswith(("projection", "generator"))}
    left |= {k for k in params if form == "timm" and k.startswith("decoder")}
    assert back.keys() == params.keys() - left
    for name, read in back.items():
        assert read.dtype == params[name].dtype
        assert read.tobytes() == params[name].tobytes(), name


@given(
    heads=st.integers(1, 4),
    head_width=st.sampled_from([4, 8]),
    depth=st.integers(1, 12),
    mlp=st.integers(1, 40),
    patch=st.sampled_from([2, 4, 7]),
    channels=st.integers(1, 4),
    side=st.integers(1, 4),
    bias=st.sampled_from(["qkv", "none"]),
    positions=st.sampled_from(["sincos_2d", "learned"]),
    cls_token=st.booleans(),
    decoder_depth=st.integers(0, 2),
    classes=st.integers(0, 3),
)
def test_published_names_survive_import_and_export_at_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    heads: int,
    head_width: int,
    depth: int,
    mlp: int,
    patch: int,
    channels: int,
    side: int,
    bias: str,
    positions: str,
    cls_token: bool,
    decoder_depth: int,
    classes: int,
) -> None:
    pixels = decoder(stack(8, decoder_depth, 2, 12, bias), True, "sincos_2d") if decoder_depth else None
    arch = image_arch(
        encoder=stack(heads * head_width, depth, heads, mlp, bias),
        patch=(1, patch, patch),
        channels=channels,
        grid=(1, side, side),
        positions=positions,
        cls_token=cls_token,
        decoder=pixels,
        classes=0 if pixels else classes,
    )
    folder = tmp_path_factory.mktemp("sizes")
    weights = published(arch)
    save_file(weights, folder / "in.safetensors")
    assert run("import", folder / "in.safetensors", f"--heads={heads}", "--out", folder / "ours") == 0
    assert run("export", folder / "ours", "--format=official", "--out", folder / "out") == 0
    out = load_file(folder / "out" / "model.safetensors")
    assert out.keys() == weights.keys()
    assert all(np.array_equal(out[k], weights[k]) for k in out)


@pytest.mark.parametrize("arch", CASES.values(), ids=CASES)
def test_kind_and_sizes_are_recognised(arch: Network, save: Callable[..., str], request: Any) -> None:
    found = recognise(open_source(save(published(arch))))
    wanted = request.node.callspec.id.split(" ")[0]
    same_names = {
        "mae_finetuned": "timm_vit",
        "timm": "timm_vit",
        "no": "timm_vit",
        "learned": "videomae_finetuned",
    }
    assert found.kind in (wanted, same_names.get(wanted))
    mine, theirs = found.network.encoder, arch.encoder
    block = dataclasses.replace(mine.block, heads=theirs.block.heads)  # a guess
    assert (block, mine.depth, mine.positions) == (theirs.block, theirs.depth, theirs.positions)
    assert found.network.classes == arch.classes
    assert found.network.task == arch.task


@pytest.mark.parametrize("arch", CASES.values(), ids=CASES)
def test_names_and_shapes_are_those_of_the_models(arch: Network) -> None:
    values = jnp.zeros((1, arch.encoder.tokens, arch.patch_values))
    at = jnp.arange(arch.encoder.tokens)[None]
    key = jax.random.key(0)
    if arch.decoder:
        masks, student = Masks(at[:, :4], at[:, 4:6], at[:, 6:]), arch.student()
        tree = jax.eval_shape(lambda: student.init(key, values[:, :4], masks))["params"]
        assert parameter_shapes(student, arch.patch_values) == arch.shapes()
    elif arch.classes:
        classifier = arch.classifier()
        tree = jax.eval_shape(lambda: classifier.init(key, values, at))["params"]
        assert parameter_shapes(classifier, arch.patch_values) == arch.shapes()
    else:
        vit = ViT(arch.encoder)
        tree = {"encoder": jax.eval_shape(lambda: vit.init(key, values, at))["params"]}
    shapes = jax.tree.map(lambda s: np.zeros(s.shape, np.int8), tree)
    assert {k: v.shape for k, v in flatten(shapes).items()} == arch.shapes()


def test_description_survives_json() -> None:
    for arch in CASES.values():
        facts = describe.of_json(json.loads(json.dumps(arch.to_json())))
        assert describe.describe(arch.shapes(), facts, {}) == arch


def test_timm_export_describes_itself(save: Callable[..., str], tmp_path: Path) -> None:
    arch = image_arch(classes=7, norm=False, fc_norm=True)
    assert run("import", save(published(arch)), "--heads=4", "--out", tmp_path / "a") == 0
    assert run("export", tmp_path / "a", "--format=timm", "--out", tmp_path / "b") == 0
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    modes = {path.stat().st_mode for path in (tmp_path / "b").iterdir()}
    assert len(modes) == 1  # whoever may read the one may read the other
    assert config["model_args"]["num_heads"] == 4
    assert config["model_args"]["global_pool"] == "avg"
    with safe_open(tmp_path / "b" / "model.safetensors", "np") as file:
        names = set(file.keys())
    assert {"cls_token", "pos_embed", "fc_norm.weight", "head.weight", "blocks.2.attn.qkv.bias"} <= names
    assert "norm.weight" not in names


def test_stored_type_stays_and_loading_gives_float32(tmp_path: Path) -> None:
    weights = published(mae_arch(), dtype=np.float16)
    save_file(weights, tmp_path / "x.safetensors")
    assert run("import", tmp_path / "x.safetensors", "--out", tmp_path / "a") == 0
    assert {v.dtype for v in imported(tmp_path / "a").values()} == {np.dtype(np.float16)}
