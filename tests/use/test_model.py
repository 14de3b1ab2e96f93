"""A loaded model gives what the libraries that wrote its weights give, from files to probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import amd_jax
from amd_jax.convert.files.stated import Stated
from amd_jax.data.encode import encode
from amd_jax.data.transforms import resize_center_crop
from amd_jax.errors import ConfigError, DataError, WeightsError
from amd_jax.use.model import Model
from tests.convert.conftest import as_ours, image_arch, run, video_arch
from tests.runs import tiny, untrained

RNG = np.random.default_rng(0)
NAMES = ("ant", "bee", "cat", "dog", "elk")


def picture(path: Path, height: int, width: int) -> Path:
    """A smooth picture, which no decoder rounds another way."""
    small = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def classifier(tmp_path: Path, **changes: Any) -> Model:
    """Of small random weights."""
    arch = image_arch(classes=5, **changes)
    return amd_jax.load(str(as_ours(arch, tmp_path / "weights", said=Stated(classes=NAMES))))


def test_features_of_another_familys_weights_leave_its_registers_out(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2}
    config = transformers.Dinov2WithRegistersConfig(
        **sizes, num_register_tokens=4, image_size=28, patch_size=14
    )
    theirs = transformers.Dinov2WithRegistersModel(config).eval()
    theirs.save_pretrained(tmp_path)
    model = amd_jax.load(tmp_path)
    pixels = RNG.integers(0, 256, (2, 28, 28, 3), np.uint8)
    normal = (pixels / 255 - np.array(model.prepare.mean)) / np.array(model.prepare.std)
    with torch.no_grad():
        tokens = theirs(torch.tensor(normal, dtype=torch.float32).permute(0, 3, 1, 2)).last_hidden_state
    np.testing.assert_allclose(model.tokens(pixels), tokens, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.embed(pixels), tokens[:, 5:].mean(dim=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.embed(pixels, pool="cls"), tokens[:, 0], rtol=1e-5, atol=1e-5)


PROCESSORS = {
    "ViT, squeezed": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 2}),
    "BiT, with a margin": (
        "BitImageProcessor",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_probabilities_of_files_are_those_of_transformers_pipeline(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind, options = PROCESSORS[name]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
    config = transformers.ViTConfig(
        **sizes, **labels, image_size=32, patch_size=8, num_labels=5, initializer_range=0.5
    )
    folder = tmp_path / "theirs"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    normal = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.25]}
    getattr(transformers, kind)(**options, **normal).save_pretrained(folder)
    files = [
        str(picture(tmp_path / f"{i}.png", *size)) for i, size in enumerate([(48, 48), (44, 78), (90, 52)])
    ]

    pipe = transformers.pipeline("image-classification", str(folder))
    theirs = [{row["label"]: row["score"] for row in found} for found in pipe(files, top_k=5)]
    model = amd_jax.load(str(folder))
    assert model.classes == NAMES
    for chances, wanted in zip(model.classify(files), theirs, strict=True):
        assert dict(zip(NAMES, chances.tolist(), strict=True)) == pytest.approx(wanted, abs=2e-5)


def test_a_path_a_picture_and_its_pixels_are_the_same_input(tmp_path: Path) -> None:
    model, path = classifier(tmp_path), picture(tmp_path / "a.png", 40, 60)
    with Image.open(path) as image:
        given = [path, str(path), image.copy(), np.asarray(image)]
    features = model.embed(given)
    assert features.shape == (4, 32)
    np.testing.assert_array_equal(features, features[:1].repeat(4, 0))
    np.testing.assert_array_equal(model.embed(path), features[:1])
    np.testing.assert_allclose(model.embed(np.stack([given[3]] * 3)), features[:3], rtol=1e-5)


def test_neither_the_batch_nor_its_padding_changes_a_feature(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    pixels = RNG.integers(0, 256, (11, 32, 32, 3), np.uint8)
    whole = model.embed(pixels)
    for batch_size in (1, 4, 64):
        np.testing.assert_allclose(model.embed(pixels, batch_size=batch_size), whole, rtol=1e-4, atol=1e-5)


def test_features_are_the_tokens_that_the_head_reads_or_that_are_asked_for(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    pixels = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    tokens = model.tokens(pixels)
    assert tokens.shape == (2, 17, 32)
    np.testing.assert_allclose(model.embed(pixels), tokens[:, 0], rtol=1e-5)
    np.testing.assert_allclose(model.embed(pixels, pool="cls"), tokens[:, 0], rtol=1e-5)
    np.testing.assert_allclose(model.embed(pixels, pool="mean"), tokens[:, 1:].mean(1), rtol=1e-4, atol=1e-5)


def test_a_grid_may_have_another_shape_than_the_images(tmp_path: Path) -> None:
    model = classifier(tmp_path, grid=(1, 3, 6))
    assert model.prepare.size == (24, 48)
    views = model.prepare(picture(tmp_path / "tall.png", 90, 30))
    assert views.shape == (1, 1, 24, 48, 3)
    assert model.classify(tmp_path / "tall.png").sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [(64, 80), (32, 24)])
def test_a_run_sees_what_it_was_evaluated_on(size: tuple[int, int], tmp_path: Path) -> None:
    """Images of another height than width, with a margin and without one."""
    untrained(tiny(method="mae", data__image_size=size), tmp_path / "run")
    prepare = amd_jax.load(str(tmp_path / "run")).prepare
    for shape in ((90, 100), (100, 70), (33, 90)):
        pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
        np.testing.assert_array_equal(prepare(pixels)[0, 0], resize_center_crop(pixels, size))


def test_clips_and_crops_of_a_video_are_averaged(tmp_path: Path) -> None:
    pytest.importorskip("av")
    src = as_ours(video_arch(), tmp_path / "weights")
    frames = RNG.integers(0, 256, (40, 32, 44, 3), np.uint8)
    (tmp_path / "a.mp4").write_bytes(encode(frames, fps=25, crf=1, gop=10))
    one, many = amd_jax.load(str(src)), amd_jax.load(str(src), clips=2, crops=3)
    views = many.prepare(tmp_path / "a.mp4")
    assert views.shape == (6, 4, 32, 32, 3)
    each = np.concatenate([one.run("classify", view[None, None]) for view in views])
    np.testing.assert_allclose(many.classify(tmp_path / "a.mp4")[0], each.mean(0), rtol=1e-4, atol=1e-6)
    assert one.classify([tmp_path / "a.mp4", frames]).shape == (2, 5)


def test_mistakes_are_told_by_the_name_of_the_input(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 not all of it")
    for given, words in (
        ([tmp_path / "bad.jpg"], "bad.jpg"),
        ([tmp_path / "none.jpg"], "none.jpg: No such file"),
        ([np.zeros((4, 4, 3), np.float32)], "type float32; uint8 is read"),
        ([3], "a int: neither a path"),
        (7, "a int: give paths"),
        ([tmp_path / "a.mp4"], "a.mp4: no such file"),
    ):
        with pytest.raises(DataError, match=words):
            model.embed(given)
    encoder = as_ours(image_arch(cls_token=False), tmp_path / "encoder")
    with pytest.raises(WeightsError, match="no classes"):
        amd_jax.load(str(encoder)).classify([])
    with pytest.raises(ConfigError, match="no CLS token"):
        amd_jax.load(str(encoder)).embed([], pool="cls")


def test_what_nobody_says_of_the_pixels_is_assumed_and_told(tmp_path: Path) -> None:
    assert "ImageNet" in amd_jax.load(str(as_ours(image_arch(), tmp_path / "a"))).prepare.assumed
    said = Stated((0.5,) * 3, (0.5,) * 3)
    assert not amd_jax.load(str(as_ours(image_arch(), tmp_path / "b", said=said))).prepare.assumed
    assert run("export", tmp_path / "b", "--format=timm", "--out", tmp_path / "timm") == 0
    there = amd_jax.load(str(tmp_path / "timm"))
    assert (there.prepare.mean, there.prepare.assumed) == ((0.5,) * 3, "")
