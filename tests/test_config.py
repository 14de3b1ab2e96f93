"""Config keys, config files, and the one-line errors for what is wrong in them."""

import importlib
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from amd_jax import probe
from amd_jax.config import KEYS, default, flat, height_width
from amd_jax.models import build
from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.tasks import make_task
from amd_jax.workdir import run_config, save_config
from tests.runs import step_shapes

ROOT = Path(__file__).parents[1]
# A comparison's plan is not the config of a run; tests/compare/ looks at the runs in it.
OTHERS = ("common", "__init__", "comparing")
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in OTHERS)
FILES = [name for name in NAMES if not name.startswith("compare_")]
ARGUMENTS = {
    "demo": ("teacher", "mae", "amd", "smoke"),
    "demo_video": ("teacher", "videomae", "amd", "finetune", "frame", "smoke"),
    **{f"dmae_vit{size}_in1k": ("", "mask95", "mask98", "smoke") for size in ("b", "s", "ti")},
}
RUNS = [(name, arg) for name in FILES for arg in ARGUMENTS.get(name, ("", "smoke"))]


def load(name: str, argument: str = "smoke") -> ConfigDict:
    """A config as the command line gets it."""
    return importlib.import_module(f"configs.{name}").get_config(argument)


@pytest.mark.parametrize(("name", "argument"), RUNS)
def test_every_config_is_valid_and_its_whole_step_has_shapes(name: str, argument: str) -> None:
    config = load(name, argument)
    step_shapes(config)


@pytest.mark.parametrize(
    ("name", "seen", "tokens"),
    [
        ("vitb_in1k", (3, 8), 15),
        ("dmae_vitb_in1k", (3, 3), 15),
        ("finetune_vitb_in1k", (), 15),
        ("vitb_k400", (3, 8), 30),
        ("vits_in1k_dinov2", (3, 8), 15),
    ],
)
def test_images_may_have_another_height_than_width(name: str, seen: tuple[int, ...], tokens: int) -> None:
    """The whole step has shapes; 3 × 5 patches, and of a teacher with its own patches as many."""
    config = load(name)
    side = config.model.patch_size
    config.data.image_size = (3 * side, 5 * side)
    config.mask.student_visible, config.mask.teacher_visible = 3, 8
    step_shapes(config)
    assert build.encoder(config, "student").grid == (tokens // 15, 3, 5)
    task = make_task(config, 10)
    assert task.input_shape[1:3] == (3 * side, 5 * side)
    if seen:
        assert (task.student_visible, task.teacher_visible) == seen
    square = load(name)
    square.mask.student_visible, square.mask.teacher_visible = 3, 8
    square.data.image_size = 4 * side
    assert task.flops_per_example < make_task(square, 10).flops_per_example  # 15 tokens, not 16


def test_a_pair_survives_a_file_and_the_command_line(tmp_path: Path) -> None:
    config = load("vitb_in1k")
    config.data.image_size = (16, 24)
    save_config(str(tmp_path), config)
    again = run_config(str(tmp_path))
    assert height_width(again.data.image_size) == (16, 24)
    assert build.grid(again) == build.grid(config)
    found = vars(probe._arguments(["run", "--config.data.image_size=16,24"]))
    assert found["data.image_size"] == (16, 24)
    assert vars(probe._arguments(["run", "--config.data.image_size=16"]))["data.image_size"] == 16


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


VIDEO_FINETUNING = {
    "finetune_vits_k400": (150.0, 1e-3, 512, 0.75, 0.1, (5, 3)),
    "finetune_vitb_k400": (90.0, 7e-4, 512, 0.75, 0.1, (5, 3)),
    "finetune_vits_ssv2": (40.0, 1e-3, 256, 0.75, 0.1, (2, 3)),
    "finetune_vitb_ssv2": (30.0, 5e-4, 256, 0.75, 0.1, (2, 3)),
    "finetune_vitb_ucf101": (100.0, 5e-4, 128, 0.7, 0.2, (5, 3)),
    "finetune_vitb_hmdb51": (100.0, 5e-4, 128, 0.7, 0.2, (5, 3)),
}


@pytest.mark.parametrize("name", VIDEO_FINETUNING)
def test_fine_tuning_on_videos_is_by_the_released_scripts(name: str) -> None:
    """MCG-NJU/AMD scripts/finetune, MCG-NJU/VideoMAE scripts/ucf101."""
    c = load(name, "")
    small = name.endswith(("ucf101", "hmdb51"))
    assert (c.optim.b2, c.optim.weight_decay, c.optim.warmup_epochs) == (0.999, 0.05, 5.0)
    assert (c.finetune.mixup, c.finetune.cutmix, c.finetune.smoothing, c.data.erasing) == (
        0.8,
        1.0,
        0.1,
        0.25,
    )
    assert c.optim.min_lr == (1e-5 if small else 1e-6)
    assert c.finetune.head_drop == (0.5 if small else 0.0)
    assert (c.data.frames, c.data.repeats, c.data.randaugment) == (16, 2, "rand-m7-n4-mstd0.5-inc1")
    assert c.data.flip == (not name.endswith("ssv2"))
    assert c.data.sampling == ("segments" if name.endswith("ssv2") else "dense")
    assert c.finetune.mix_groups * 16 == c.batch_size  # 16 videos a GPU
    length = (c.epochs, c.optim.base_lr, c.batch_size)
    views = (c.eval.clips, c.eval.crops)
    assert (*length, c.optim.layer_decay, c.finetune.drop_path, views) == VIDEO_FINETUNING[name]


@pytest.mark.parametrize("name", ["vits_k400", "vitb_k400", "vits_ssv2", "vitb_ssv2"])
def test_amd_on_videos_is_by_the_released_scripts(name: str) -> None:
    """MCG-NJU/AMD scripts/pretrain: 20 of 196 positions for the student, 49 for the teacher."""
    c = load(name, "")
    c.teacher.random = True
    run = Pretraining.from_config(c)
    assert (run.student_visible, run.teacher_visible) == (20, 49)
    assert run.input_shape == (16, 224, 224, 3)
    assert run.student.encoder.grid == (8, 14, 14)
    width = run.student.encoder.block.width
    assert (run.student.decoder.block.width, run.student.decoder.depth) == (width // 2, 4)
    assert (c.batch_size, c.epochs, c.data.repeats) == (512, 200.0, 4)
    rates = [rate * c.batch_size / 256 for rate in (c.optim.base_lr, c.optim.min_lr)]
    assert rates == pytest.approx([2.4e-3, 2e-5])
    assert (c.optim.warmup_epochs, c.optim.warmup_lr, c.optim.clip, c.optim.b2) == (10.0, 0.0, 0.02, 0.95)
    assert (c.data.crop, c.data.flip) == ("multi_scale", False)
    kind = ("segments", 2) if name.endswith("ssv2") else ("dense", 4)
    assert (c.data.sampling, c.data.stride) == kind


# Of teachers that are no MAE.
OTHERS_WEIGHTS = {
    "vits_in1k_dinov2": "hf://facebook/dinov2-with-registers-large",
    "vitb_in1k_siglip2": "hf://google/siglip2-large-patch16-256",
    "vitb_in1k_clip": "hf://openai/clip-vit-large-patch14",
}
OTHER_FAMILIES = {
    "clip": "hf://openai/clip-vit-large-patch14",
    "dinov2": "hf://facebook/dinov2-with-registers-large",
    "siglip2": "hf://google/siglip2-large-patch16-256",
}
TEACHERS = [name for name in FILES if "demo" not in name and load(name, "").method in ("amd", "dmae", "kd")]


@pytest.mark.parametrize("name", TEACHERS)
def test_a_config_with_a_teacher_names_the_published_file_it_wants(name: str) -> None:
    """DMAE's was pre-trained without normalised targets, MAE's other files were not; KD's is fine-tuned."""
    config, text = load(name, ""), importlib.import_module(f"configs.{name}").__doc__ or ""
    if family := next((word for word in OTHER_FAMILIES if name.endswith(word)), None):
        assert f"--config.teacher.weights={OTHER_FAMILIES[family]}" in text
        return
    kind = {"amd": "pretrain", "dmae": "visualize", "kd": "finetuned"}[config.method]
    wanted = OTHERS_WEIGHTS.get(name, f"mae_{kind}_vit_{config.teacher.size}.pth")
    if config.data.frames > 1:
        amd = {"k400": "VideoMAEv1_vit_L_k400_pt_1600e.pth", "ssv2": "VideoMAEv1_vit_L_ssv2_pt_2400e.pth"}
        tuned = "hf://MCG-NJU/videomae-large-finetuned-kinetics"
        wanted = tuned if kind == "finetuned" else amd[name.rsplit("_", 1)[1]]
    assert f"--config.teacher.weights={wanted}" in text


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
