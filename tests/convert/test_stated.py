"""What files say of pixels and classes is read wherever it is said, kept, and refused if damaged."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from amd_jax.convert.files.opening import read_stated
from amd_jax.convert.files.stated import Stated, of_processor
from amd_jax.errors import UserError
from configs import vitb_k400
from tests.convert.conftest import as_ours, image_arch, published, run
from tests.runs import tiny

TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "pretrained_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.4, 0.4, 0.4],
        "input_size": [3, 384, 384],
        "interpolation": "bilinear",
        "label_names": ["cat", "dog"],
    },
}
PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "size": {"height": 32, "width": 48},
    "resample": 2,
}


def _folder(folder: Path, **files: Any) -> Path:
    """Weights under published names, and JSON files beside them."""
    folder.mkdir()
    save_file(published(image_arch(classes=2)), folder / "model.safetensors")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("old", [False, True], ids=["now", "all at the top"])
def test_timms_config_says_mean_std_size_interpolation_and_names(old: bool, tmp_path: Path) -> None:
    content = {"architecture": "x", **TIMM["pretrained_cfg"]} if old else TIMM  # type: ignore[dict-item]
    folder = _folder(tmp_path / "timm", config=content)
    origin = str(folder / "config.json")
    want = Stated((0.5,) * 3, (0.4,) * 3, (384, 384), "bilinear", ("cat", "dog"), origin)
    assert read_stated(str(folder)) == want
    assert read_stated(str(folder / "model.safetensors")) == want


def test_transformers_processor_and_config_say_it(tmp_path: Path) -> None:
    config = {"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}
    folder = _folder(tmp_path / "hf", config=config, preprocessor_config=PROCESSOR)
    origin = str(folder / "preprocessor_config.json")
    want = Stated((0.5, 0.4, 0.3), (0.2,) * 3, (32, 48), "bilinear", ("cat", "dog"), origin, resize=(32, 48))
    assert read_stated(str(folder)) == want


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({"do_normalize": False}, (0.0,), (1.0,)),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,), (0.25,)),
        # (255 x - 127.5) / 51 = (x - 0.5) / 0.2
        ({"do_rescale": False, "image_mean": 127.5, "image_std": 51}, (0.5,), (0.2,)),
        ({"do_rescale": False, "do_normalize": False}, (0.0,), (1 / 255,)),
        # 2 x - 1 = (x - 0.5) / 0.5
        ({"rescale_factor": 2 / 255, "image_mean": 1.0, "image_std": 1.0}, (0.5,), (0.5,)),
    ],
)
def test_mean_and_std_are_those_of_pixels_in_0_to_1(
    changes: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    said = of_processor(PROCESSOR | changes, "x")
    assert (said.mean, said.std) == (pytest.approx(mean), pytest.approx(std))


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"size": 224}, (224, 224)),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, (224, 224)),
        ({"size": {"longest_edge": 256}}, ()),
        ({"size": None}, ()),
    ],
)
def test_size_is_read_in_all_its_forms(changes: dict[str, Any], size: tuple[int, ...]) -> None:
    assert of_processor(PROCESSOR | changes, "x").size == size


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"preprocessor_config": PROCESSOR | {"image_mean": ["a", 0, 0]}}, "not numbers"),
        ({"preprocessor_config": PROCESSOR | {"image_std": [0.5, 0.5, 0]}}, "do not go together"),
        ({"preprocessor_config": PROCESSOR | {"image_std": [0.5]}}, "do not go together"),
        ({"preprocessor_config": [1]}, "not a JSON object"),
        ({"config": {"pretrained_cfg": [1]}}, "not a JSON object"),
    ],
)
def test_damaged_file_is_one_line_that_names_it(files: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "x", **files)
    with pytest.raises(UserError) as caught:
        read_stated(str(folder))
    assert says in str(caught.value)
    assert str(folder / next(iter(files))) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bare_weights_say_nothing(tmp_path: Path) -> None:
    assert read_stated(str(_folder(tmp_path / "x"))) == Stated()


def test_import_and_export_keep_what_was_said(tmp_path: Path) -> None:
    src = _folder(tmp_path / "timm", config=TIMM)
    assert run("import", src, "--out", tmp_path / "ours") == 0
    want = read_stated(str(src))
    kept = read_stated(str(tmp_path / "ours"))
    assert kept == dataclasses.replace(want, origin=kept.origin)
    for form in ("timm", "hf", "official"):
        assert run("export", tmp_path / "ours", f"--format={form}", "--out", tmp_path / form) == 0
        said = read_stated(str(tmp_path / form))
        assert (said.mean, said.std, said.classes) == (want.mean, want.std, want.classes)
        assert (said.size, said.interpolation) == ((32, 32), "bilinear")  # of the weights, not of the config


@pytest.mark.parametrize("form", ["timm", "hf"])
@pytest.mark.parametrize("resize", [(37,), (41,), (40, 40)])
def test_export_keeps_what_images_are_resized_to(resize: tuple[int, ...], form: str, tmp_path: Path) -> None:
    said = Stated((0.5,) * 3, (0.5,) * 3, (32, 32), "bilinear", resize=resize)
    src = as_ours(image_arch(classes=2), tmp_path / "ours", said=said)
    assert run("export", src, f"--format={form}", "--out", tmp_path / "out") == 0
    assert read_stated(str(tmp_path / "out")).resize == resize


def test_run_says_its_own(tmp_path: Path) -> None:
    from amd_jax.workdir import save_classes, save_config

    config = tiny(data__mean=(0.1, 0.2, 0.3), data__std=(0.4, 0.5, 0.6))
    save_config(str(tmp_path), config)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    size = (config.data.image_size,) * 2
    want = Stated((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), size, "bicubic", (), str(tmp_path / "config.json"))
    assert read_stated(str(tmp_path)) == want
    save_classes(str(tmp_path), ("a", "b"))
    assert read_stated(str(tmp_path / "checkpoints" / "3")).classes == ("a", "b")
    (tmp_path / "classes.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="not a list of names"):
        read_stated(str(tmp_path))


def test_runs_on_videos_resize_bilinearly(tmp_path: Path) -> None:
    from amd_jax.workdir import save_config

    save_config(str(tmp_path), vitb_k400.get_config("smoke"))
    (tmp_path / "checkpoints").mkdir()
    said = read_stated(str(tmp_path))
    assert said.interpolation == "bilinear"
    assert said.differing_input(said.size, video=True) == ""
    assert "bilinear resizing (here bicubic)" in said.differing_input(said.size, video=False)


@pytest.mark.parametrize(("kind", "known"), [("mae_finetuned", True), ("timm_vit", False)])
def test_export_leaves_out_what_nobody_said_unless_the_kind_has_one_mean(
    kind: str, known: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(published(image_arch(classes=2)), tmp_path / "x.safetensors")
    assert run("import", tmp_path / "x.safetensors", f"--kind={kind}", "--out", tmp_path / "ours") == 0
    assert run("export", tmp_path / "ours", "--format=timm", "--out", tmp_path / "timm") == 0
    assert ("ImageNet's" in capsys.readouterr().out) == known
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert ("mean" in config["pretrained_cfg"]) == known
    assert run("export", tmp_path / "ours", "--format=hf", "--out", tmp_path / "hf") == 0
    assert (tmp_path / "hf" / "preprocessor_config.json").exists() == known


def test_names_that_do_not_fit_the_head_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = as_ours(image_arch(classes=3), tmp_path / "ours", said=Stated(classes=("cat", "dog")))
    assert run("export", src, "--format=hf", "--out", tmp_path / "hf") == 0
    assert "2 names for 3 classes" in capsys.readouterr().out
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
