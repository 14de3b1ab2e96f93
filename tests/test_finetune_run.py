"""Fine-tuning runs: from our own pre-training, from a timm ViT file, and with a fine-tuned teacher."""

from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from amd_jax.convert.cli import main as convert
from amd_jax.errors import ConfigError
from amd_jax.train import loop, setup
from amd_jax.workdir import load_params
from configs import finetune_vitb_in1k, kd_vitb_in1k, vitb_in1k
from tests.runs import assert_same, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the eight devices is enough."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the AMD smoke run."""
    workdir = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        device = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *args: device)
        config = vitb_in1k.get_config("smoke")
        config.log.pictures_every = 0
        loop.train(setup.prepare(config, str(workdir)))
    return workdir


def finetuning(weights: Path, **changes: object) -> ConfigDict:
    """The smoke run from `weights`."""
    config = finetune_vitb_in1k.get_config("smoke")
    config.student.weights = str(weights)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def test_from_our_own_pretraining_and_then_as_a_teacher(pretrained: Path, tmp_path: Path) -> None:
    first = tmp_path / "finetuned"
    run = setup.prepare(finetuning(pretrained, finetune__ema=0.5), str(first))
    before, _ = load_params(str(pretrained))
    assert_same(run.state.params["encoder"]["blocks"], before["encoder"]["blocks"])
    loop.train(run)
    scored = [line for line in metrics(first) if "eval_top1" in line]
    assert scored[-1]["step"] == 20
    assert scored[-1]["eval_examples"] == 2000

    only = finetuning(pretrained, finetune__ema=0.5, eval__only=True, eval__batch_size=100)
    record = (first / "config.json").read_text()
    scores = loop.evaluate_only(setup.prepare(only, str(first)))
    assert scores == pytest.approx({name: scored[-1][name] for name in scores}, abs=1e-3)
    assert (first / "config.json").read_text() == record

    # The weights that others get are those that were scored: here the running mean.
    assert convert(["export", str(first), "--format=timm", "--out", str(tmp_path / "timm")]) == 0
    only = finetuning(tmp_path / "timm" / "model.safetensors", eval__only=True)
    again = loop.evaluate_only(setup.prepare(only, str(tmp_path / "again")))
    assert again == pytest.approx(scores, abs=1e-3)

    config = kd_vitb_in1k.get_config("smoke")
    config.teacher.random, config.teacher.weights = False, str(first)
    loop.train(setup.prepare(config, str(tmp_path / "kd")))
    assert {"loss_label", "loss_kd"} <= metrics(tmp_path / "kd")[0].keys()

    config.teacher.weights = str(pretrained)
    with pytest.raises(ConfigError, match="give a fine-tuned teacher"):
        setup.prepare(config, str(tmp_path / "wrong"))


def test_weights_without_a_head_are_not_scored(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no .*head/kernel.*give a fine-tuned model"):
        setup.prepare(finetuning(pretrained, eval__only=True), str(tmp_path))


def test_no_evaluation_but_the_last(pretrained: Path, tmp_path: Path) -> None:
    run = setup.prepare(finetuning(pretrained, eval__every_epochs=0.0, steps=6), str(tmp_path))
    loop.train(run)
    assert [line["step"] for line in metrics(tmp_path) if "eval_top1" in line] == [6]


def test_from_a_timm_file(pretrained: Path, tmp_path: Path) -> None:
    """The encoder's weights arrive through `export --format=timm` and back."""
    assert convert(["export", str(pretrained), "--format=timm", "--out", str(tmp_path / "timm")]) == 0
    weights = tmp_path / "timm" / "model.safetensors"
    config = finetuning(weights, finetune__pool="cls", data__image_size=48)
    run = setup.prepare(config, str(tmp_path / "run"))
    assert run.state.params["encoder"]["positions"].shape == (1 + 36, 32)  # interpolated from 16 patches
    loop.train(run)
    assert metrics(tmp_path / "run")[-1]["eval_examples"] == 2000
