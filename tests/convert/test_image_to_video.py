"""A video model that starts from weights of an image model."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax.convert.guesses import fixed_table
from amd_jax.convert.load import Loaded, load_classifier, load_encoder
from amd_jax.convert.network import Network
from amd_jax.errors import UserError
from amd_jax.models.patches import patchify
from amd_jax.models.vit import ViT
from amd_jax.train import loop, setup
from amd_jax.workdir import load_params
from configs import finetune_vitb_k400, mae_vitl_in1k, vitb_k400
from tests.convert.conftest import as_ours, changed, image_arch, mae_arch, video_arch
from tests.runs import metrics, untrained

IMAGE_KEYS = {"cls_token": True, "qkv_bias": "qkv"}  # what MAE's ViT has and VideoMAE's has not


def _of_videos(arch: Network, **changes: Any) -> Network:
    """The same model for videos of two tubelets of two frames."""
    (_, height, width), (_, *patch) = arch.encoder.grid, arch.patch
    return changed(arch, patch=(2, *patch), grid=(2, height, width), video=True, **changes)


def _loaded(src: Path, arch: Network) -> Loaded:
    return load_encoder(str(src), arch.encoder, arch.patch, arch.channels, final_norm=True)


def _features(arch: Network, params: Any, pixels: np.ndarray) -> np.ndarray:
    """`[1, tokens, width]` of pixels `[frames, height, width, 3]`."""
    x = patchify(jnp.asarray(pixels)[None], arch.patch)
    out, _ = ViT(arch.encoder).apply({"params": params}, x, jnp.arange(x.shape[1])[None])
    return np.asarray(out)


@pytest.mark.parametrize("positions", ["sincos_2d", "learned", "rotary"])
def test_still_video_has_the_features_of_its_image_at_every_time(positions: str, tmp_path: Path) -> None:
    """Without a CLS token, which many equal tokens would outvote."""
    image = image_arch(cls_token=False, positions=positions)
    src, video = as_ours(image, tmp_path / "image"), _of_videos(image)
    picture = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    want = _features(image, _loaded(src, image).params, picture)
    found = _features(video, _loaded(src, video).params, np.repeat(picture, 4, axis=0))
    np.testing.assert_allclose(found, np.tile(want, (1, 2, 1)), atol=1e-4)


def test_report_says_what_became_of_time(tmp_path: Path) -> None:
    src = as_ours(mae_arch(), tmp_path / "image")
    loaded = _loaded(src, _of_videos(image_arch()))
    report = "\n".join(loaded.report)
    assert "inflated: tubelets of 1 frames in the file, 2 here" in report
    assert "our sincos_2d table, the same for every time: 1x4x4 tokens in the file, 2x4x4 here" in report
    assert loaded.params["cls_token"].shape == (32,)
    assert not loaded.new


def test_learned_positions_start_from_the_images_at_every_time(tmp_path: Path) -> None:
    src = as_ours(mae_arch(), tmp_path / "image")
    table = fixed_table("sincos_2d", (1, 4, 4), 32, True)
    loaded = _loaded(src, _of_videos(image_arch(), positions="learned"))
    want = np.concatenate([table[:1], table[1:], table[1:]])
    np.testing.assert_allclose(loaded.params["positions"], want, atol=1e-6)


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_config_of_a_videomae_is_told_all_keys_that_an_image_model_needs(who: str, tmp_path: Path) -> None:
    src, want = as_ours(mae_arch(), tmp_path / "image"), video_arch()
    with pytest.raises(UserError) as caught:
        load_classifier(str(src), want.classifier(), want.patch, want.channels, who=who)
    assert str(caught.value) == (
        f"{who}.weights: {src / 'weights.safetensors'} (amd_jax) has qkv_bias 'qkv', cls_token True, "
        f"positions 'sincos_2d', the config asks for 'qv', False, 'sincos_1d'; set "
        f"config.{who}.qkv_bias='qkv', "
        f"config.{who}.cls_token=True, config.{who}.positions='sincos_2d'"
        + (", or 'learned', which starts from it" if who == "student" else "")
    )


def _prepared(config: Any, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> setup.Run:
    """A run of two steps on one device."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)
    config.steps, config.optim.warmup_steps, config.log.every = 2, 1, 1
    config.log.pictures_every, config.eval.every_epochs = 0, 0.0
    return setup.prepare(config, str(workdir))


def _inflated(params: Any) -> np.ndarray:
    """The patch embedding of an image as one for tubelets of two frames."""
    return np.tile(np.asarray(params["encoder"]["patch_embed"]["kernel"]) / 2, (2, 1))


@pytest.mark.slow
def test_image_mae_teaches_a_video_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = untrained(mae_vitl_in1k.get_config("smoke"), tmp_path / "image")
    config = vitb_k400.get_config("smoke")
    config.teacher.update({"weights": str(tmp_path / "image"), "random": False, "positions": "sincos_2d"})
    config.teacher.update(IMAGE_KEYS)
    run = _prepared(config, tmp_path / "video", monkeypatch)
    np.testing.assert_allclose(run.teacher["patch_embed"]["kernel"], _inflated(image), rtol=1e-6)
    loop.train(run)
    steps = [line for line in metrics(tmp_path / "video") if "loss_gen" in line]
    assert [line["step"] for line in steps] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in steps)


@pytest.mark.slow
def test_video_student_is_fine_tuned_from_an_image_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = untrained(mae_vitl_in1k.get_config("smoke"), tmp_path / "image")
    config = finetune_vitb_k400.get_config("smoke")
    config.student.update({"weights": str(tmp_path / "image"), "positions": "learned"} | IMAGE_KEYS)
    run = _prepared(config, tmp_path / "video", monkeypatch)
    encoder = run.state.params["encoder"]
    np.testing.assert_allclose(encoder["patch_embed"]["kernel"], _inflated(image), rtol=1e-6)
    first, second = np.asarray(encoder["positions"])[1:].reshape(2, 16, -1)
    np.testing.assert_array_equal(first, second)
    loop.train(run)
    trained, _ = load_params(str(tmp_path / "video"))
    first, second = np.asarray(trained["encoder"]["positions"])[1:].reshape(2, 16, -1)
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)  # it learns when
