"""Fine-tuning: layer decay, drop path, mixing and the teacher's logits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from amd_jax import sharding
from amd_jax.data.example import Example
from amd_jax.data.sources import make_source
from amd_jax.data.subset import Subset
from amd_jax.data.transforms import decode, resize_center_crop
from amd_jax.evals.accuracy import make_scorer
from amd_jax.models.vit import drop_path
from amd_jax.steps.finetune import Finetuning
from amd_jax.steps.step import make_step
from amd_jax.steps.train_state import TrainState
from amd_jax.train import optim
from configs import finetune_vitb_in1k, kd_vitb_in1k

BATCH = 8


def task(config: ConfigDict | None = None, **changes: Any) -> Finetuning:
    """The smoke config's classifier of 10 classes."""
    config = config or finetune_vitb_in1k.get_config("smoke")
    return dataclasses.replace(Finetuning.from_config(config, 10), **changes)


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    """Eight random images with labels."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (BATCH, *task().input_shape), np.uint8)
    return {"pixels": jnp.asarray(pixels), "label": jnp.arange(BATCH)}


def test_positions_are_learned_and_do_not_decay() -> None:
    """As in MAE's models_vit.py."""
    run = Finetuning.from_config(finetune_vitb_in1k.get_config(), 1000)
    assert jax.eval_shape(run.init, jax.random.key(0))["encoder"]["positions"].shape == (197, 768)
    assert optim.NO_DECAY.search("encoder/positions")


def test_layer_decay_scales_the_whole_update() -> None:
    config = finetune_vitb_in1k.get_config("smoke")
    params = jax.jit(task(config).init)(jax.random.key(0))
    grads = jax.tree.map(jnp.ones_like, params)
    updates = []
    for decay in (1.0, 0.5):
        config.optim.layer_decay = decay
        transformation = optim.optimizer(config, optax.constant_schedule(0.1))
        updates.append(transformation.update(grads, transformation.init(params), params)[0])
    plain, layered = updates
    scales = optim.layer_scales(params, 0.5)
    jax.tree.map(lambda a, b, s: np.testing.assert_allclose(a * s, b, rtol=1e-6), plain, layered, scales)
    np.testing.assert_allclose(scales["encoder"]["blocks"]["layers"]["norm1"]["scale"][:, 0], [0.25, 0.5])
    assert scales["encoder"]["patch_embed"]["kernel"] == 0.125
    assert scales["head"]["kernel"] == scales["fc_norm"]["scale"] == 1


def test_drop_path_rises_linearly_and_keeps_the_mean() -> None:
    keep = np.asarray(drop_path(jax.random.key(0), 4000, 5, 0.4))
    assert keep.shape == (4000, 5, 2)
    np.testing.assert_allclose((keep == 0).mean(axis=(0, 2)), [0, 0.1, 0.2, 0.3, 0.4], atol=0.02)
    np.testing.assert_allclose(keep.mean(axis=(0, 2)), 1, atol=0.03)


def test_a_dropped_branch_leaves_the_example_as_it_was(batch: dict[str, jax.Array]) -> None:
    """With all factors 0 the blocks do nothing: the logits ignore their weights."""
    run = task(mixup=0.0, cutmix=0.0)
    params = jax.jit(run.init)(jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    other = jax.tree.map(lambda x: x, params)
    other["encoder"]["blocks"] = jax.tree.map(lambda x: x + 1, params["encoder"]["blocks"])
    keep = jnp.zeros((BATCH, run.model.encoder.depth, 2))
    a, b = (run.logits(run.model, p, batch["pixels"], keep) for p in (params, other))
    np.testing.assert_array_equal(a, b)
    whole = run.logits(run.model, params, batch["pixels"], keep + 1)
    np.testing.assert_array_equal(whole, run.logits(run.model, params, batch["pixels"]))
    assert np.abs(whole - a).max() > 0.1


def test_the_loss_is_label_smoothing_cross_entropy(batch: dict[str, jax.Array]) -> None:
    """timm's LabelSmoothingCrossEntropy, which its soft targets amount to where nothing is mixed."""
    run = task(mixup=0.0, cutmix=0.0, smoothing=0.1, drop_path=0.0)
    params = jax.jit(run.init)(jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    loss, parts = run.batch_loss(params, {}, run.prepare(jax.random.key(2), batch))
    logits = run.logits(run.model, params, batch["pixels"])
    assert logits.dtype == loss.dtype == jnp.float32
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    expected = 0.9 * nll - 0.1 * jax.nn.log_softmax(logits).mean(-1)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    assert parts == {}


def test_soft_distillation_is_zero_for_equal_logits_and_t_squared_kl_otherwise() -> None:
    run = task(kd_vitb_in1k.get_config("smoke"), kd_temperature=2.0)
    a, b = jax.random.normal(jax.random.key(0), (2, 5, 10))
    np.testing.assert_allclose(run._distillation(a, a), 0, atol=1e-6)
    p, q = (np.exp(x / 2) / np.exp(x / 2).sum(axis=1, keepdims=True) for x in map(np.asarray, (b, a)))
    expected = 4 * (p * np.log(p / q)).sum(axis=1).mean()
    np.testing.assert_allclose(run._distillation(a, b), expected, rtol=1e-5)


def test_the_teacher_alone_sees_pixels_normalised_its_own_way(batch: dict[str, jax.Array]) -> None:
    plain = task(kd_vitb_in1k.get_config("smoke"))
    other = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}
    own = dataclasses.replace(plain, **{f"teacher_{name}": x for name, x in other.items()})
    shapes = jax.eval_shape(own.init_frozen, jax.random.key(0))
    rng = np.random.default_rng(1)
    frozen = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), jnp.float32), shapes)
    params = frozen  # student and teacher are of one size here
    wanted = dataclasses.replace(plain, **other).logits(own.teacher, frozen, batch["pixels"])
    np.testing.assert_array_equal(own.teacher_logits(frozen, batch["pixels"]), wanted)
    assert abs(wanted - plain.teacher_logits(frozen, batch["pixels"])).max() > 1e-4
    seen = own.prepare(jax.random.key(3), batch)
    loss, parts = own.batch_loss(params, frozen, seen)
    other_loss, others = plain.batch_loss(params, frozen, seen)
    assert parts["loss_label"] == others["loss_label"]
    assert parts["loss_kd"] != others["loss_kd"]
    assert loss != other_loss


def test_hard_distillation_is_cross_entropy_with_the_teachers_choice() -> None:
    run = task(kd_vitb_in1k.get_config("smoke"), kd_hard=True)
    a, b = jax.random.normal(jax.random.key(0), (2, 5, 10))
    expected = optax.softmax_cross_entropy_with_integer_labels(a, b.argmax(axis=1)).mean()
    np.testing.assert_allclose(run._distillation(a, b), expected, rtol=1e-5)


@pytest.mark.slow
def test_accumulation_changes_nothing_and_the_running_mean_follows(batch: dict[str, jax.Array]) -> None:
    config = kd_vitb_in1k.get_config("smoke")
    run = task(config, drop_path=0.3)
    draw = [jax.jit(f)(jax.random.key(i)) for i, f in enumerate((run.init, run.init_frozen))]
    results = []
    for accum in (1, 4):
        state = TrainState.create(draw[0], optax.sgd(0.1), ema=True)
        step = jax.jit(make_step(run, optax.sgd(0.1), optax.constant_schedule(0.1), 0, accum, None, 0.9))
        results.append(step(state, draw[1], batch))
    (one, values), (four, others) = results
    for name in values:
        np.testing.assert_allclose(values[name], others[name], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.params, four.params)
    mean = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, draw[0], one.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.ema, mean)
    total = (1 - run.kd_weight) * values["loss_label"] + run.kd_weight * values["loss_kd"]
    np.testing.assert_allclose(values["loss"], total, rtol=1e-6)


def test_evaluation_is_what_numpy_finds_on_any_number_of_devices() -> None:
    """Every one of 2,000 examples counts exactly once, though they do not divide by batches of 96."""
    config = finetune_vitb_in1k.get_config("smoke")
    config.eval.batch_size = 96
    run, source = task(config), make_source(config.data, "eval")
    params = jax.jit(run.init)(jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    examples = [source[i] for i in range(len(source))]
    pixels = np.stack([resize_center_crop(decode(e.content, 3), config.data.image_size) for e in examples])
    logits = np.asarray(jax.jit(run.logits, static_argnums=0)(run.model, params, pixels[:, None]), np.float64)
    label = np.array([e.label for e in examples])
    order = np.argsort(-logits, axis=1)
    own = logits[np.arange(len(label)), label]
    expected = {
        "eval_top1": 100 * np.mean(order[:, 0] == label),
        "eval_top5": 100 * np.mean((order[:, :5] == label[:, None]).any(axis=1)),
        "eval_loss": np.mean(np.log(np.exp(logits).sum(axis=1)) - own),
        "eval_examples": 2000,
    }
    for devices in (1, 3, 8):
        mesh = sharding.make_mesh(devices=jax.devices()[:devices])
        evaluate = make_scorer(config, run, source, mesh)
        assert evaluate(jax.device_put(params, sharding.replicated(mesh))) == pytest.approx(
            expected, abs=1e-3
        )


@pytest.mark.parametrize("classes", [3, 10])
def test_logits_that_are_no_numbers_are_wrong_and_few_classes_are_all_among_the_first_five(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = finetune_vitb_in1k.get_config("smoke")
    config.eval.batch_size = 8
    run = Finetuning.from_config(config, classes)
    broken = jnp.full((8, classes), jnp.nan)
    tied = jnp.zeros((8, classes))
    source = Subset(make_source(config.data, "eval"), np.arange(8))
    monkeypatch.setattr(Subset, "__getitem__", lambda self, i: Example(self._source[i].content, i % 3))
    mesh = sharding.make_mesh(devices=jax.devices()[:1])

    def scores(logits: jax.Array) -> dict[str, float]:
        monkeypatch.setattr(Finetuning, "logits", lambda self, model, params, pixels: params)
        return make_scorer(config, run, source, mesh)(logits)

    assert scores(broken)["eval_top1"] == 0
    assert scores(tied)["eval_top1"] == 0
    assert scores(tied)["eval_top5"] == (100 if classes < 5 else 0)
