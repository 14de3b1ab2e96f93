"""What training loads: only what it asked for, in float32, and every misfit names the key to set."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from amd_jax.convert import resize
from amd_jax.convert.files.tensors import METADATA_KEY
from amd_jax.convert.guesses import fixed_table
from amd_jax.convert.load import Loaded, load_classifier, load_encoder, load_student
from amd_jax.convert.names import entries, official
from amd_jax.convert.network import Network
from amd_jax.errors import UserError
from amd_jax.models.vit import ViT, ViTConfig
from amd_jax.trees import flatten
from tests.convert.conftest import (
    amd_arch,
    changed,
    decoder,
    image_arch,
    mae_arch,
    published,
    random_params,
    run,
    stack,
    video_arch,
)

Save = Callable[..., str]


def _encoder(src: str, arch: Network, final_norm: bool = True, who: str = "teacher") -> Loaded:
    """Loads the encoder that `arch` describes."""
    return load_encoder(src, arch.encoder, arch.patch, arch.channels, final_norm=final_norm, who=who)


def _shapes(config: ViTConfig, values: int, final_norm: bool) -> dict[str, tuple[int, ...]]:
    x, at = np.zeros((1, config.tokens, values), np.float32), np.arange(config.tokens)[None]
    tree = jax.eval_shape(lambda: ViT(config, final_norm).init(jax.random.key(0), x, at))["params"]
    return {k: v.shape for k, v in flatten(jax.tree.map(lambda s: np.zeros(s.shape, np.int8), tree)).items()}


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("arch", [mae_arch(), video_arch(), amd_arch()], ids=["mae", "videomae", "amd"])
def test_params_are_exactly_those_of_the_encoder(
    arch: Network, depth: int, final_norm: bool, save: Save
) -> None:
    want = changed(arch, depth=depth)
    loaded = _encoder(save(published(arch)), want, final_norm)
    flat = flatten(loaded.params)
    assert {k: v.shape for k, v in flat.items()} == _shapes(want.encoder, arch.patch_values, final_norm)
    assert all(v.dtype == np.float32 for v in flat.values())
    assert not loaded.new


def test_layers_above_the_last_needed_one_and_the_decoder_are_named_as_dropped(save: Save) -> None:
    want = image_arch(encoder=stack(32, 2, 4, 64))
    report = "\n".join(_encoder(save(published(mae_arch())), want, final_norm=False).report)
    assert "blocks.2.attn.qkv.weight" in report
    assert "above the last layer that is needed" in report
    assert "decoder not needed" in report
    assert "before the final norm" in report
    assert "equal to the file's" in report


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"encoder": stack(1024, 1, 16, 4096)}, "config.teacher.size='base'"),
        ({"encoder": stack(768, 13, 12, 3072)}, "config.teacher.depth"),
        ({"encoder": stack(768, 1, 12, 3072, "qv")}, "config.teacher.qkv_bias='qkv'"),
        ({"cls_token": False}, "config.teacher.cls_token=True"),
        ({"channels": 1}, "config.data.channels=3"),
        ({"patch": (1, 16, 16)}, "config.teacher.patch_size=8"),
        ({"positions": "sincos_1d"}, "config.teacher.positions='sincos_2d'"),
    ],
)
def test_misfit_is_one_line_that_names_the_key_to_set(changes: dict, key: str, tmp_path: Path) -> None:
    arch = image_arch(encoder=stack(768, 12, 12, 3072))
    weights = {  # ViT-B's shapes; zeros take no time
        name.format(i): np.zeros(shape, np.float16)
        for entry in entries.writable(official.table(entries.Parts.of(arch)), arch.shapes())
        for name, shape in zip(entry.theirs, entries.their_shapes(entry, arch.shapes()), strict=True)
        for i in range(12 if entry.stacked else 1)
    }
    weights["pos_embed"] = fixed_table("sincos_2d", arch.encoder.grid, 768, True)[None].astype(np.float16)
    save_file(weights, tmp_path / "x.safetensors")
    base = changed(arch, depth=1)
    with pytest.raises(UserError) as caught:
        _encoder(str(tmp_path / "x.safetensors"), changed(base, **changes))
    assert key in str(caught.value)
    assert str(caught.value).startswith("teacher.weights: ")
    assert "\n" not in str(caught.value)


def test_learned_table_is_not_silently_replaced_by_a_fixed_one(save: Save) -> None:
    src = save(published(image_arch(positions="learned")))
    with pytest.raises(UserError, match="positions='learned'"):
        _encoder(src, image_arch())


def _interpolated(table: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What MAE's interpolate_pos_embed makes of a table of 1 + 4×4 rows."""
    torch = pytest.importorskip("torch")
    old = torch.from_numpy(table.astype(np.float32)).reshape(17, -1)
    patches = old[1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    new = torch.nn.functional.interpolate(patches, size=size, mode="bicubic", align_corners=False)
    return torch.cat([old[:1], new.permute(0, 2, 3, 1).reshape(size[0] * size[1], -1)]).numpy()


def test_fixed_table_is_regenerated_for_another_resolution(save: Save) -> None:
    want = image_arch(grid=(1, 6, 6))
    loaded = _encoder(save(published(image_arch())), want)
    assert "positions" not in loaded.params
    assert any("1x4x4 tokens in the file, 1x6x6 here" in line for line in loaded.report)


def test_learned_positions_start_from_the_fixed_table_interpolated_as_mae_does_it(save: Save) -> None:
    arch = image_arch()
    src = save(published(arch))
    same = _encoder(src, changed(arch, positions="learned"))
    table = fixed_table(arch.encoder.positions, arch.encoder.grid, 32, True)
    np.testing.assert_allclose(same.params["positions"], table, atol=1e-6)
    loaded = _encoder(src, changed(arch, positions="learned", grid=(1, 7, 3)))
    np.testing.assert_allclose(loaded.params["positions"], _interpolated(table, (7, 3)), atol=1e-5)
    assert any("1x4x4 tokens in the file, 1x7x3 here" in line for line in loaded.report)


def test_learned_table_is_interpolated_as_pytorch_does_it(save: Save) -> None:
    arch = image_arch(positions="learned")
    weights = published(arch)
    loaded = _encoder(save(weights), changed(arch, grid=(1, 7, 3)))
    new = _interpolated(weights["pos_embed"], (7, 3))
    np.testing.assert_allclose(loaded.params["positions"], new, atol=1e-5)
    assert any(line.startswith("interpolated") for line in loaded.report)


def test_time_is_interpolated_linearly_as_pytorch_does_it() -> None:
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for new in (1, 2, 8):
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(table.T[None]), size=new, mode="linear", align_corners=False
        )
        ours = resize.positions(table, False, (5, 1, 1), (new, 1, 1))
        assert np.allclose(ours, theirs[0].T.numpy(), atol=1e-6)


@pytest.mark.parametrize(("old", "new", "how"), [(1, 2, "inflated"), (2, 1, "summed"), (2, 4, "spread")])
def test_other_tubelet_embeds_a_still_video_as_before(old: int, new: int, how: str, save: Save) -> None:
    arch = video_arch(patch=(old, 8, 8))
    weights = published(arch)
    loaded = _encoder(save(weights), dataclasses.replace(arch, patch=(new, 8, 8)))
    frame = np.random.default_rng(0).normal(size=8 * 8 * 3).astype(np.float32)
    kernel = weights["patch_embed.proj.weight"].sum(axis=2).transpose(2, 3, 1, 0).reshape(-1, 32)
    ours = np.tile(frame, new) @ loaded.params["patch_embed"]["kernel"]
    assert np.allclose(ours, frame @ kernel, atol=1e-4)
    assert any(line.startswith("changed") and how in line for line in loaded.report)


def test_heads_come_from_the_config_where_the_file_does_not_show_them(save: Save, tmp_path: Path) -> None:
    arch = image_arch(encoder=stack(32, 2, 8, 64))
    src = save(published(arch))
    assert run("import", src, "--out", tmp_path / "guessed") == 0
    assert run("import", src, "--heads=2", "--out", tmp_path / "stated") == 0
    for path in (src, str(tmp_path / "guessed")):
        assert _encoder(path, arch).params["blocks"]["layers"]["attn"]["qkv"].shape == (2, 32, 3, 8, 4)
    with pytest.raises(UserError, match=r"config\.teacher\.heads=2"):
        _encoder(str(tmp_path / "stated"), arch)


def test_imported_folder_and_original_give_the_same_params(save: Save, tmp_path: Path) -> None:
    arch = mae_arch()
    src = save(published(arch))
    assert run("import", src, "--out", tmp_path / "ours") == 0
    a, b = (flatten(_encoder(s, arch).params) for s in (src, str(tmp_path / "ours")))
    assert all(np.array_equal(a[k], b[k]) for k in a.keys() | b.keys())


def test_half_precision_file_gives_float32(save: Save) -> None:
    loaded = _encoder(save(published(mae_arch(), dtype=np.float16)), image_arch())
    assert {v.dtype for v in flatten(loaded.params).values()} == {np.dtype(np.float32)}


def test_final_norm_of_a_mean_pooled_model_starts_anew_and_says_so(save: Save) -> None:
    loaded = _encoder(save(published(video_arch())), video_arch(), final_norm=True)
    assert np.array_equal(loaded.params["norm"]["scale"], np.ones(32))
    assert any(line.startswith("new") and "encoder/norm/scale" in line for line in loaded.report)


def test_student_from_a_videomae_leaves_heads_to_the_caller(save: Save) -> None:
    arch = amd_arch()
    student = arch.student()
    loaded = load_student(save(published(dataclasses.replace(arch, align=None))), student, (2, 8, 8), 3)
    assert {name.split("/")[0] for name in loaded.new} == {
        "projection_0",
        "projection_1",
        "generator_0",
        "generator_1",
    }
    assert flatten(loaded.params).keys() | loaded.new.keys() == arch.shapes().keys()


def test_student_with_another_decoder_keeps_the_encoder_and_says_why(save: Save) -> None:
    arch = mae_arch()
    small = changed(arch, decoder=decoder(stack(8, 2, 2, 64), True, "sincos_2d"))
    loaded = load_student(save(published(arch)), small.student(), arch.patch, 3)
    assert {name.split("/")[0] for name in loaded.new} == {
        "decoder_embed",
        "decoder",
        "decoder_norm",
        "decoder_pred",
    }
    assert any("in the file" in line and "decoder" in line for line in loaded.report)


def test_generators_mask_tokens_that_amd_never_saved_are_new(save: Save) -> None:
    arch = amd_arch()
    weights = {k: v for k, v in published(arch).items() if not k.startswith("generator_mask_tokens")}
    student = arch.student()
    loaded = load_student(save(weights), student, arch.patch, arch.channels)
    assert loaded.new.keys() == {"generator_0/mask_token", "generator_1/mask_token"}


@pytest.mark.parametrize("classes", [5, 7])
def test_head_is_used_only_with_the_same_classes(classes: int, save: Save) -> None:
    arch = video_arch(classes=classes)
    loaded = load_classifier(save(published(video_arch())), arch.classifier(), arch.patch, 3)
    assert loaded.new.keys() == (set() if classes == 5 else {"head/kernel", "head/bias"})


def test_classifier_from_pre_training_gets_a_new_head_and_pooling_norm(save: Save) -> None:
    arch = image_arch(classes=4, norm=False, fc_norm=True)
    loaded = load_classifier(save(published(mae_arch())), arch.classifier(), arch.patch, 3)
    assert loaded.new.keys() == {"head/kernel", "head/bias", "fc_norm/scale", "fc_norm/bias"}
    assert any("normalises after pooling" in line for line in loaded.report)


def test_other_epsilon_is_noted(tmp_path: Path) -> None:
    arch = mae_arch()
    block = dataclasses.replace(arch.encoder.block, norm_eps=1e-12)
    theirs = changed(arch, encoder=(block, arch.encoder.depth))
    (tmp_path / "a").mkdir()
    about = {METADATA_KEY: json.dumps({"arch": theirs.to_json()})}
    save_file(random_params(theirs), tmp_path / "a" / "weights.safetensors", metadata=about)
    assert any("epsilon 1e-12" in line for line in _encoder(str(tmp_path / "a"), arch).report)
