"""A model card says what the run recorded, no more, and no paths of whoever ran it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from amd_jax.workdir import save_classes
from configs import finetune_vitb_in1k
from tests.convert.conftest import as_ours, image_arch, run
from tests.runs import tiny, untrained


def _card(src: Path, out: Path, form: str) -> tuple[dict[str, Any], str]:
    """The front matter and the text."""
    assert run("export", src, f"--format={form}", "--out", out) == 0
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def _metrics(workdir: Path, *lines: dict[str, Any]) -> None:
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_of_a_fine_tuned_run_it_tells_data_recipe_and_scores(tmp_path: Path) -> None:
    config = finetune_vitb_in1k.get_config("smoke")
    config.student.weights, config.data.repeats = "/home/somebody/runs/amd", 2
    config.finetune.smoothing = 0.1
    untrained(config, tmp_path / "run")
    save_classes(str(tmp_path / "run"), tuple(f"class|{i}" for i in range(10)))
    scores = {"eval_top1": 81.25, "eval_top5": 95.5, "eval_loss": 0.7}
    later = {"eval_top1": 99.5}  # of other weights than those of step 1
    _metrics(tmp_path / "run", {"step": 1, "loss": 0.5}, {"step": 1, **scores}, {"step": 2, **later})
    front, text = _card(tmp_path / "run", tmp_path / "timm", "timm")
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-classification"
    assert "finetune" in front["tags"]
    assert "license" not in front
    assert "| method | fine-tuning on labels |" in text
    assert "| started from | amd |" in text
    assert "somebody" not in text
    assert "Fashion-MNIST" in text
    assert f"| batch | {config.batch_size} examples, 2 views of each |" in text
    assert "`finetune.smoothing=0.1`" in text
    assert "| top-1 accuracy, % | 81.25 | 1 |" in text
    assert "99.5" not in text
    assert "align." not in text
    assert r"10: class\|0, class\|1" in text


def test_of_a_pre_training_run_it_tells_teacher_and_masks(tmp_path: Path) -> None:
    config = tiny(teacher__weights="hf://facebook/vit-mae-large", teacher__random=False)
    untrained(config, tmp_path / "run")
    front, text = _card(tmp_path / "run", tmp_path / "out", "stablehlo")
    assert (front["library_name"], front["pipeline_tag"]) == ("jax", "image-feature-extraction")
    assert "AMD, asymmetric masked distillation (arXiv 2311.03149)" in text
    assert "| teacher | hf://facebook/vit-mae-large |" in text
    assert "| patches seen | 25 %, by the teacher 50 % |" in text
    assert "## Scores" not in text  # none was recorded


def test_of_bare_weights_it_is_short(tmp_path: Path) -> None:
    front, text = _card(as_ours(image_arch(), tmp_path / "ours"), tmp_path / "out", "hf")
    assert "| parameters | 31,904 |" in text
    assert "## Training" not in text
    assert "## Use" not in text  # nobody says mean and std, so transformers has no processor for it
    assert front["tags"] == ["amd_jax", "vision-transformer"]


def test_a_card_that_somebody_has_written_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    assert (
        run("export", as_ours(image_arch(), tmp_path / "ours"), "--format=timm", "--out", tmp_path / "out")
        == 0
    )
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert "stays as it is" in capsys.readouterr().out
