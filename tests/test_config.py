"""Config keys, config files, and the one-line errors for what is wrong in them."""

import importlib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from amd_jax.config import KEYS, default, flat
from amd_jax.steps.pretrain import Pretraining
from tests.runs import step_shapes

ROOT = Path(__file__).parents[1]
# A comparison's plan is not the config of a run; tests/compare/ looks at the runs in it.
OTHERS = ("common", "__init__", "compare_fashion")
FILES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in OTHERS)
ARGUMENTS = {"demo": ("teacher", "mae", "amd", "smoke"), "dmae": ("", "mask95", "mask98", "smoke")}
RUNS = [(name, arg) for name in FILES for arg in ARGUMENTS.get(name.split("_")[0], ("", "smoke"))]


def load(name: str, argument: str = "smoke") -> ConfigDict:
    """A config as the command line gets it."""
    return importlib.import_module(f"configs.{name}").get_config(argument)


@pytest.mark.parametrize(("name", "argument"), RUNS)
def test_every_config_is_valid_and_its_whole_step_has_shapes(name: str, argument: str) -> None:
    config = load(name, argument)
    step_shapes(config)


@pytest.mark.parametrize(("name", "argument"), RUNS)
def test_a_config_file_says_how_to_run_it(name: str, argument: str) -> None:
    text = importlib.import_module(f"configs.{name}").__doc__
    assert f"--config=configs/{name}.py" in text


def test_vitb_is_the_papers_model() -> None:
    """AMD ViT-B from ViT-L: 20 of its numbers, counted by hand from the paper's description."""
    config = load("vitb_in1k", "")
    config.teacher.random = True
    run = Pretraining.from_config(config)
    assert (run.student.encoder.block.width, run.student.encoder.depth) == (768, 12)
    assert run.teacher is not None
    assert (run.teacher.config.block.width, run.teacher.config.depth) == (1024, 24)
    assert run.student.align is not None
    assert run.student.align.generator is not None
    assert run.student.align.generator.heads == 16
    assert (run.student_visible, run.teacher_visible) == (49, 98)
    assert (run.student.decoder.block.width, run.student.decoder.depth) == (384, 4)


FINETUNING = {
    "finetune_vitb_in1k": (100.0, 5e-4, 5.0, 0.65, 0.1, 32),
    "finetune_vits_in1k": (100.0, 5e-4, 5.0, 0.65, 0.1, 32),
    "finetune_vitl_in1k": (50.0, 1e-3, 5.0, 0.75, 0.2, 32),
    "finetune_dmae_vitb_in1k": (100.0, 5e-4, 20.0, 0.75, 0.15, 8),
}


@pytest.mark.parametrize("name", FINETUNING)
def test_fine_tuning_is_by_the_published_recipe_of_its_method_and_size(name: str) -> None:
    """METHODS.md, DMAE 6; facebookresearch/mae FINETUNE.md."""
    c = load(name, "")
    shared = (c.batch_size, c.optim.b2, c.optim.weight_decay, c.finetune.mixup, c.finetune.cutmix)
    assert shared == (1024, 0.999, 0.05, 0.8, 1.0)
    assert (c.finetune.smoothing, c.data.erasing, c.finetune.pool) == (0.1, 0.25, "mean")
    assert c.optim.min_lr * c.batch_size / 256 == pytest.approx(1e-6)
    length = (c.epochs, c.optim.base_lr, c.optim.warmup_epochs)
    assert (*length, c.optim.layer_decay, c.finetune.drop_path, c.finetune.mix_groups) == FINETUNING[name]


TEACHERS = [name for name in FILES if name != "demo" and load(name, "").method in ("amd", "dmae", "kd")]


@pytest.mark.parametrize("name", TEACHERS)
def test_a_config_with_a_teacher_names_the_published_file_it_wants(name: str) -> None:
    """DMAE's was pre-trained without normalised targets, MAE's other files were not; KD's is fine-tuned."""
    config, text = load(name, ""), importlib.import_module(f"configs.{name}").__doc__ or ""
    kind = {"amd": "pretrain", "dmae": "visualize", "kd": "finetuned"}[config.method]
    assert f"--config.teacher.weights=mae_{kind}_vit_{config.teacher.size}.pth" in text


def test_every_key_has_a_meaning_and_its_default_is_among_its_choices() -> None:
    for name, key in KEYS.items():
        assert key.meaning, name
        assert not key.choices or key.default in key.choices, name


def test_an_unknown_key_and_a_wrong_type_are_refused_where_they_are_set() -> None:
    config = default()
    with pytest.raises((KeyError, AttributeError)):
        config.data.nosuch = 1
    with pytest.raises(TypeError):
        config.batch_size = "many"


def test_flat_names_are_the_declared_ones() -> None:
    assert flat(default()).keys() == KEYS.keys()
