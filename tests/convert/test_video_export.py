"""Exported video models in transformers: its pipeline on a video file, and what it cannot be given."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from amd_jax.convert.files.stated import Stated
from amd_jax.convert.network import Network
from amd_jax.data.clips import crops_along
from amd_jax.data.encode import encode
from amd_jax.data.example import VideoFile
from amd_jax.data.moving import MovingSource
from amd_jax.data.video import open_video
from amd_jax.models.patches import patchify
from amd_jax.models.vit import ViT
from amd_jax.steps.finetune import Finetuning
from amd_jax.trees import nest
from amd_jax.workdir import save_classes
from configs import finetune_vitb_k400, vitb_k400
from tests.convert.conftest import as_ours, random_params, run, video_arch
from tests.runs import untrained

pytest.importorskip("torch")
pytest.importorskip("av")
transformers = pytest.importorskip("transformers")

MEAN, STD = (0.1, 0.5, 0.6), (0.5, 0.2, 0.3)
FRAMES, RATE, SIZE = 4, 3, 32  # of the smoke run; the rate is the pipeline's


def _run(folder: Path, **data: Any) -> tuple[Finetuning, Any]:
    """The workdir of a fine-tuned video student with weights that tell videos apart; its task and weights."""
    config = finetune_vitb_k400.get_config("smoke")
    config.data.update({"mean": MEAN, "std": STD, **data})
    params = untrained(config, folder, scale=0.4)
    save_classes(str(folder), MovingSource.class_names)
    return Finetuning.from_config(config, MovingSource.num_classes), params


def _video(path: Path, height: int, width: int) -> np.ndarray:
    """Writes waves that move as H.264; returns the frames that the pipeline samples, as we decode them."""
    t, y, x = np.mgrid[:24, :height, :width]
    waves = [np.sin(x * k / width * 6 + y * k / height * 3 + t * k / 5) for k in (1, 2, 3)]
    frames = (np.stack(waves, axis=-1) * 127 + 128).astype(np.uint8)
    path.write_bytes(encode(frames, 10, gop=12))
    # The pipeline's rule: from the first frame on, the last one of a step at the end.
    at = np.linspace(0, FRAMES * RATE - 1, FRAMES, dtype=np.int64)
    with open_video(VideoFile(str(path))) as video:
        return video.read(at, 3)


def _exported(folder: Path, out: Path) -> Path:
    assert run("export", folder, "--format=hf", "--out", out) == 0
    return out


def _softmax(logits: Any) -> np.ndarray:
    return np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1))


# Height and width of the video, and how much its resizing may move a probability: where they shrink, Pillow
# averages all pixels, our evaluation (as AMD's) takes the four nearest ones.
@pytest.mark.parametrize(
    ("shape", "bound"), [((32, 32), 1e-4), ((32, 50), 1e-4), ((64, 64), 5e-3), ((20, 28), 5e-3)]
)
def test_pipeline_on_a_video_file_gives_the_runs_probabilities_by_name(
    shape: tuple[int, int], bound: float, tmp_path: Path
) -> None:
    task, params = _run(tmp_path / "run")
    out = _exported(tmp_path / "run", tmp_path / "hf")
    frames = _video(tmp_path / "a.mp4", *shape)

    classify = transformers.pipeline("video-classification", model=str(out))
    sampling = {"num_frames": FRAMES, "frame_sampling_rate": RATE}
    rows = classify(str(tmp_path / "a.mp4"), top_k=MovingSource.num_classes, **sampling)
    theirs = {row["label"]: row["score"] for row in rows}

    clip = crops_along(frames, SIZE, 1)
    ours = _softmax(task.logits(task.model, params, jnp.asarray(clip)))[0]
    assert ours.max() > 0.2  # of sixteen classes: it does see something
    assert theirs == pytest.approx(dict(zip(MovingSource.class_names, ours.tolist(), strict=True)), abs=bound)


def _processed(out: Path, frames: np.ndarray) -> np.ndarray:
    """What transformers' processor makes of frames, [T, H, W, C]."""
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    x: np.ndarray = processor(list(frames), return_tensors="np")["pixel_values"][0]
    return x.transpose(0, 2, 3, 1)


def _normal(clip: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> np.ndarray:
    out: np.ndarray = (clip / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return out


@pytest.mark.parametrize("shape", [(72, 72), (72, 120), (100, 72)])
def test_processor_makes_our_crop_and_normalisation(shape: tuple[int, int], tmp_path: Path) -> None:
    """Also at a size where images have a margin."""
    src = as_ours(video_arch(grid=(2, 9, 9)), tmp_path / "ours", said=Stated(MEAN, STD))
    out = _exported(src, tmp_path / "hf")
    frames = np.random.default_rng(0).integers(0, 256, (4, *shape, 3), np.uint8)
    np.testing.assert_allclose(_processed(out, frames), _normal(crops_along(frames, 72, 1)[0]), atol=1e-5)


def test_processor_differs_from_us_by_the_filter_alone(tmp_path: Path) -> None:
    """It resizes bilinearly too, but over all the pixels that become one."""
    src = as_ours(video_arch(grid=(2, 9, 9)), tmp_path / "ours", said=Stated(MEAN, STD))
    out = _exported(src, tmp_path / "hf")
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)
    images = [Image.fromarray(frame).resize((96, 72), Image.Resampling.BILINEAR) for frame in frames]
    crops = np.stack([np.asarray(image)[:, 12:84] for image in images])
    np.testing.assert_allclose(_processed(out, frames), _normal(crops), atol=1e-5)


def test_files_say_how_the_run_evaluates(tmp_path: Path) -> None:
    _run(tmp_path / "run")
    out = _exported(tmp_path / "run", tmp_path / "hf")
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["VideoMAEForVideoClassification"]
    assert list(config["id2label"].values()) == list(MovingSource.class_names)
    assert (config["num_frames"], config["tubelet_size"], config["image_size"]) == (4, 2, 32)
    processor = json.loads((out / "preprocessor_config.json").read_text())
    assert processor["size"] == {"shortest_edge": 32}
    assert processor["resample"] == Image.Resampling.BILINEAR
    assert (processor["image_mean"], processor["image_std"]) == (list(MEAN), list(STD))


def test_grey_videos_take_grey_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    task, params = _run(tmp_path / "run", channels=1, mean=(0.4,), std=(0.3,))
    out = _exported(tmp_path / "run", tmp_path / "hf")
    assert "opens videos in colour; hand its processor grey arrays" in capsys.readouterr().out
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, 1), np.uint8)
    pixels = _processed(out, clip)
    np.testing.assert_allclose(pixels, _normal(clip, (0.4,), (0.3,)), atol=1e-5)
    model = transformers.VideoMAEForVideoClassification.from_pretrained(out).eval()
    with torch.no_grad():
        theirs = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2)[None])).logits.numpy()
    ours = task.logits(task.model, params, jnp.asarray(clip)[None])
    np.testing.assert_allclose(_softmax(theirs), _softmax(ours), atol=1e-4)


def test_student_in_pre_training_opens_without_a_missing_key(tmp_path: Path) -> None:
    untrained(vitb_k400.get_config("smoke"), tmp_path / "run")
    out = _exported(tmp_path / "run", tmp_path / "hf")
    _, info = transformers.VideoMAEForPreTraining.from_pretrained(out, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert transformers.AutoImageProcessor.from_pretrained(out).size["shortest_edge"] == SIZE


def test_encoder_gives_the_same_features(tmp_path: Path) -> None:
    import torch

    arch = video_arch(classes=0, fc_norm=False, norm=True)
    params = random_params(arch)
    out = _exported(as_ours(arch, tmp_path / "ours", params), tmp_path / "hf")
    model = transformers.VideoMAEModel.from_pretrained(out).eval()
    x = np.random.default_rng(1).normal(size=(1, 4, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x.transpose(0, 1, 4, 2, 3))).last_hidden_state.numpy()
    inner = nest(params)["encoder"]
    at = jnp.arange(arch.encoder.tokens)[None]
    ours, _ = ViT(arch.encoder).apply({"params": inner}, patchify(jnp.asarray(x), arch.patch), at)
    np.testing.assert_allclose(theirs, ours, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        (video_arch(patch=(2, 8, 4)), "square patches"),
        (video_arch(cls_token=True), "no CLS token"),
        (video_arch(positions="sincos_2d"), "sincos_1d positions"),
    ],
    ids=["oblong patches", "CLS token", "an image's positions"],
)
def test_what_videomae_cannot_be_is_one_line(
    arch: Network, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = as_ours(arch, tmp_path / "ours")
    assert run("export", src, "--format=hf", "--out", tmp_path / "hf") == 2
    error = capsys.readouterr().err.strip()
    assert f"transformers' VideoMAE has {says}; export with --format=official" in error
    assert "\n" not in error
    assert run("export", src, "--format=official", "--out", tmp_path / "official") == 0
