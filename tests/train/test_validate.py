"""What a key's type cannot say is refused in one line, before anything is read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amd_jax.config import KEYS
from amd_jax.errors import ConfigError
from amd_jax.train.validate import validate, validate_probe
from tests.test_config import RUNS, load

WRONG = [
    ({"method": "kd", "teacher.registers": 4}, "teacher.registers=4 is for a teacher of features"),
    ({"teacher.positions": "rotary", "teacher.heads": 16}, "rotary positions need a multiple of 4 features"),
    ({"teacher.mlp": "relu"}, "teacher.mlp='relu': choose one of gelu, gelu_tanh, quick_gelu, swiglu"),
    ({"teacher.dtype": "int4"}, "teacher.dtype='int4': choose one of , int8, fp8"),
    ({"teacher.norm_eps": 0.0}, "teacher.norm_eps=0: must be positive"),
    ({"data.image_size": 33}, "data.image_size=33 is not a multiple of model.patch_size=8"),
    ({"data.image_size": (32, 20)}, "data.image_size=(32, 20) is not a multiple of model.patch_size=8"),
    ({"data.image_size": (32, 16, 8)}, "data.image_size=(32, 16, 8): give a whole number above 0, or two"),
    ({"data.image_size": "big"}, "data.image_size='big': give a whole number above 0, or two"),
    ({"data.image_size": (32, 0)}, "data.image_size=(32, 0): give a whole number above 0, or two"),
    ({"data.holdout": 1.0}, "data.holdout=1.0: must be below 1"),
    ({"data.holdout": 0.1, "data.eval_split": "val"}, "evaluation reads one of them"),
    ({"mask.teacher_ratio": 0.9}, "the teacher only"),
    ({"mask.student_visible": 17}, "17 of 16"),
    ({"mask.student_ratio": 0.0}, "must see some and miss some"),
    ({"mask.teacher_visible": 17}, "17 of 16"),
    ({"student.heads": 3}, "not a multiple of 3 heads"),
    ({"student.size": "enormous"}, "student.size='enormous'"),
    ({"align.student_layers": (1, 3)}, "align.student_layers"),
    ({"align.teacher_layers": (0, 1)}, "align.teacher_layers"),
    ({"align.teacher_layers": (1,)}, "must pair up"),
    ({"teacher.random": False}, "needs a teacher"),
    ({"teacher.weights": "/no/such/place"}, "no such file"),
    ({"data.channels": 1}, "data.mean has 3 values"),
    ({"data.channels": 2}, "data.channels=2"),
    ({"data.std": (0.0, 1.0, 1.0)}, "data.std"),
    ({"data.crop_scale": (1.0, 0.5)}, "data.crop_scale"),
    ({"data.randaugment": "rand-m9-x3"}, "cannot use 'x3'"),
    ({"data.erasing": 1.5}, "data.erasing=1.5"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"accum_steps": 3}, "not a multiple of accum_steps=3"),
    ({"steps": 0, "epochs": 0.0}, "set epochs or steps"),
    ({"loss.target": "words"}, "loss.target='words'"),
    ({"loss.direct_weight": 0.0, "loss.gen_weight": 0.0}, "nothing would be distilled"),
    ({"optim.base_lr": float("nan")}, "optim.base_lr"),
    ({"optim.weight_decay": -1.0}, "optim.weight_decay"),
    ({"mesh.tensor": 4}, "mesh.tensor=4"),
    ({"data.frames": 2}, "data.frames"),
    ({"log.every": 0}, "log.every"),
    ({"method": "dmae", "student.cls_token": False}, "student.cls_token and teacher.cls_token"),
    ({"teacher.width": 200, "teacher.heads": 4}, "generator"),
    ({"align.student_layers": (1.5, 2)}, "every entry must be int"),
    ({"align.student_layers": (2, 2)}, "named twice"),
    ({"loss.align": "l3"}, "loss.align='l3': choose one of"),
    ({"teacher.mean": (0.5,)}, "teacher.mean has 1 values for data.channels=3"),
    ({"teacher.std": (0.5, 0.0, 0.5)}, "teacher.std=(0.5, 0.0, 0.5): must be positive"),
    ({"teacher.mean": ("a", "b", "c")}, "every entry must be float"),
    ({"optim.b2": 1.0}, "optim.b2=1.0"),
    ({"optim.layer_decay": 0.75}, "optim.layer_decay=0.75"),
    ({"optim.warmup_steps": 21}, "optim.warmup_steps=21"),
    (
        {"steps": 0, "epochs": 20.0, "optim.warmup_steps": 0, "optim.warmup_epochs": 40.0},
        "optim.warmup_epochs=40.0",
    ),
    ({"decoder.depth": 0}, "decoder.depth=0"),
    ({"probe.pool": "cls", "student.cls_token": False}, "probe.pool='cls'"),
    ({"probe.optimizer": "sgd"}, "probe.optimizer='sgd'"),
    ({"probe.k": 0}, "probe.k=0"),
    ({"probe.temperature": 0.0}, "probe.temperature=0.0"),
    ({"probe.base_lr": 0.0}, "probe.base_lr=0.0"),
    ({"probe.epochs": 0}, "probe.epochs=0"),
    ({"probe.warmup_epochs": 90}, "probe.warmup_epochs=90"),
    ({"probe.batch_size": 1}, "probe.batch_size=1"),
    ({"probe.examples": 1}, "probe.examples=1"),
    ({"probe.examples": -1}, "probe.examples=-1"),
    ({"eval.batch_size": 0}, "eval.batch_size=0"),
    ({"method": "finetune", "probe.every_epochs": 1.0}, "probe.every_epochs=1.0"),
    ({"finetune.ema": 0.99}, "finetune.ema=0.99 is for fine-tuning"),
    ({"method": "kd", "teacher.random": False}, "needs a teacher"),
    ({"method": "finetune", "finetune.drop_path": 1.0}, "finetune.drop_path=1.0"),
    ({"method": "finetune", "finetune.mix_groups": 3}, "finetune.mix_groups=3"),
    ({"method": "finetune", "finetune.mix_groups": 32, "finetune.mixup": 0.8}, "alone in its group"),
    ({"method": "finetune", "optim.layer_decay": 0.0}, "optim.layer_decay"),
    ({"method": "finetune", "finetune.pool": "cls", "student.cls_token": False}, "student.cls_token"),
]


@pytest.mark.parametrize(("name", "argument"), RUNS)
def test_a_published_config_is_valid_once_it_has_a_teacher(name: str, argument: str) -> None:
    config = load(name, argument)
    config.teacher.random = True
    validate(config)


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_value_is_one_line_that_names_it(changes: dict, words: str) -> None:
    config = load("vitb_in1k")
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError) as caught:
        validate(config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_probe_minds_what_it_reads_and_nothing_else() -> None:
    config = load("vitb_in1k")
    config.mask.student_ratio = 0.0  # served the training
    validate_probe(config)
    config.probe.k = 0
    with pytest.raises(ConfigError, match=r"probe\.k=0"):
        validate_probe(config)


NUMBERS = [
    name for name, key in KEYS.items() if isinstance(key.default, int | float) and key.default is not True
]


@given(st.sampled_from(NUMBERS), st.one_of(st.integers(-3, 3), st.floats(-2, 2), st.just(1e30)))
def test_any_number_is_valid_or_refused(name: str, number: float) -> None:
    """No other error, whatever a number divides or indexes."""
    config = load("vitb_in1k")
    with config.unlocked():
        config.update_from_flattened_dict({name: type(KEYS[name].default)(number)})
    with contextlib.suppress(ConfigError):
        validate(config)


def test_a_key_added_behind_the_lock_is_refused() -> None:
    config = load("vitb_in1k")
    with config.unlocked():
        config.data.colour = "red"
    with pytest.raises(ConfigError, match=r"data\.colour"):
        validate(config)
