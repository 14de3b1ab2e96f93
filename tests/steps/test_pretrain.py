"""The pure step: masks by (seed, step) alone, exact accumulation, a frozen teacher, parts that add up."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.step import make_step
from amd_jax.steps.train_state import TrainState
from amd_jax.train import optim
from amd_jax.trees import path_name
from configs import vitb_in1k
from tests.runs import assert_close

BATCH = 8


def config(**changes: Any) -> ConfigDict:
    """AMD at the smallest size, one aligned layer, unequal weights, steps large enough to see."""
    out = vitb_in1k.get_config("smoke")
    out.align.student_layers, out.align.teacher_layers, out.align.generator_depth = (2,), (2,), 1
    out.loss.direct_weight, out.loss.gen_weight = 0.5, 2.0
    # Adam turns the rounding errors of vanishing gradients into whole steps; a large epsilon does not.
    out.optim.warmup_lr, out.optim.base_lr, out.optim.clip, out.optim.eps = 0.1, 0.1, 1.0, 1e-3
    out.optim.warmup_steps = 20  # of 20: the rate stays at 0.1
    out.batch_size = BATCH
    out.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return out


@functools.cache
def pretraining() -> Pretraining:
    return Pretraining.from_config(config())


@functools.cache
def optimizer() -> optax.GradientTransformation:
    return optim.optimizer(config(), schedule())


@functools.cache
def schedule() -> optax.Schedule:
    return optim.schedule(config(), 20, 10.0)


@functools.cache
def start() -> tuple[TrainState, Any, dict[str, np.ndarray]]:
    """State, teacher and a batch."""
    rng = np.random.default_rng(0)

    def draw(init: Any) -> Any:
        shapes = jax.eval_shape(init, jax.random.key(0))
        return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), jnp.float32), shapes)

    state = TrainState.create(draw(pretraining().init), optimizer())
    pixels = rng.integers(0, 256, (BATCH, *pretraining().input_shape), dtype=np.uint8)
    return state, draw(pretraining().init_frozen), {"pixels": pixels}


@functools.cache
def step(accum_steps: int) -> Any:
    """The compiled step."""
    pure = make_step(pretraining(), optimizer(), schedule(), seed=3, accum_steps=accum_steps)
    return jax.jit(pure)


@functools.cache
def two_steps(accum_steps: int) -> tuple[TrainState, list[dict[str, Any]]]:
    """The state after two steps, and the metrics of both."""
    state, teacher, batch = start()
    metrics = []
    for _ in range(2):
        state, values = step(accum_steps)(state, teacher, batch)
        metrics.append(jax.device_get(values))
    return jax.device_get(state), metrics


@pytest.mark.slow
@pytest.mark.parametrize("accum_steps", [2, 4])
def test_accumulation_gives_the_loss_and_the_weights_of_one_pass(accum_steps: int) -> None:
    (state, metrics), (whole, whole_metrics) = two_steps(accum_steps), two_steps(1)
    assert_close(metrics, whole_metrics)
    assert_close(state, whole)


@pytest.mark.slow
def test_a_step_trains_every_parameter_and_counts_itself() -> None:
    (state, metrics), (before, *_) = two_steps(1), start()
    assert state.step == 2

    def moved(path: Any, a: Any, b: Any) -> None:
        if not path_name(path).endswith("k_bias"):
            assert abs(a - np.asarray(b)).max() > 1e-6, path_name(path)

    jax.tree_util.tree_map_with_path(moved, state.params, before.params)
    assert metrics[0]["lr"] == schedule()(0)
    assert metrics[1]["lr"] == schedule()(1)
    assert metrics[0]["grad_norm"] > 0


@pytest.mark.slow
def test_the_same_step_twice_gives_the_same_bits() -> None:
    state, teacher, batch = start()
    first, again = (jax.device_get(step(1)(state, teacher, batch)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum_of_its_logged_parts() -> None:
    for m in two_steps(1)[1]:
        expected = m["loss_rec"] + 0.5 * m["loss_direct"] + 2 * m["loss_gen"]
        np.testing.assert_allclose(m["loss"], expected, rtol=1e-6)
        assert min(m["loss_rec"], m["loss_direct"], m["loss_gen"]) > 1e-3


@pytest.mark.slow
def test_repeated_steps_on_one_batch_lower_its_loss() -> None:
    """With the masks of one step: the state's count is put back each time."""
    state, teacher, batch = start()
    seen = []
    for _ in range(8):
        state, metrics = step(1)(dataclasses.replace(state, step=jnp.zeros((), jnp.int32)), teacher, batch)
        seen.append(float(metrics["loss"]))
    assert seen[-1] < 0.9 * seen[0]


def test_no_gradient_reaches_the_teacher() -> None:
    state, teacher, batch = start()
    masks = pretraining().masks(jax.random.key(0), BATCH)

    def loss(teacher: Any) -> Any:
        return pretraining().loss_fn(state.params, teacher, batch["pixels"], masks)

    value, gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(teacher)
    assert value[1]["loss_direct"] > 1e-3
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_the_teacher_alone_sees_pixels_normalised_its_own_way() -> None:
    state, teacher, batch = start()
    other = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}
    own = dataclasses.replace(pretraining(), **{f"teacher_{name}": x for name, x in other.items()})
    masks = own.masks(jax.random.key(0), BATCH)
    features, wanted, plain = (
        run.teacher_features(teacher, batch["pixels"], masks)[2]
        for run in (own, dataclasses.replace(pretraining(), **other), pretraining())
    )
    np.testing.assert_array_equal(features, wanted)
    assert abs(features - plain).max() > 0.01
    outputs = (run.student_output(state.params, batch["pixels"], masks) for run in (own, pretraining()))
    jax.tree.map(np.testing.assert_array_equal, *outputs)


def test_the_same_normalisation_for_both_is_the_same_program() -> None:
    state, teacher, batch = start()
    keys = {"teacher__mean": pretraining().mean, "teacher__std": pretraining().std}
    programs = []
    for run in (pretraining(), Pretraining.from_config(config(**keys))):
        pure = make_step(run, optimizer(), schedule(), seed=3)
        programs.append(jax.jit(pure).lower(state, teacher, batch).as_text())
    assert programs[0] == programs[1]


def test_the_state_holds_no_teacher() -> None:
    state, teacher, _ = start()
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert not [name for name in names if "teacher" in name]
    assert len(names) == 1 + 3 * len(jax.tree.leaves(state.params)) + 2  # step; weights, two moments; counts
    assert jax.tree.leaves(teacher)


class MasksInMetrics(Pretraining):
    """Reports the masks instead of a loss, to see what a step has drawn."""

    def loss_fn(self, params: Any, teacher_params: Any, pixels: Any, masks: Any) -> Any:
        zero = 0.0 * sum(leaf.sum() for leaf in jax.tree.leaves(params))
        return zero, {name: value.astype(jnp.float32) for name, value in masks._asdict().items()}


@functools.cache
def drawn(seed: int, at: int, variant: int = 0) -> Any:
    """The masks of step `at`; `variant` changes everything that must not matter."""
    fields = {f.name: getattr(pretraining(), f.name) for f in dataclasses.fields(Pretraining)}
    sgd = optax.sgd(0.1 + variant)
    state = TrainState.create({"w": jnp.full(3, 1.0 + variant)}, sgd)
    state = dataclasses.replace(state, step=jnp.asarray(at, jnp.int32))
    pixels = np.full((BATCH, *pretraining().input_shape), variant, np.uint8)
    pure = make_step(MasksInMetrics(**fields), sgd, optax.constant_schedule(0.1 + variant), seed)
    metrics = jax.device_get(jax.jit(pure)(state, {}, {"pixels": pixels})[1])
    return {name: metrics[name] for name in ("student", "diff", "masked")}


def test_masks_depend_on_seed_and_step_and_on_nothing_else() -> None:
    first = drawn(seed=3, at=7)
    jax.tree.map(np.testing.assert_array_equal, first, drawn(seed=3, at=7, variant=1))
    for other in (drawn(seed=3, at=8), drawn(seed=4, at=7)):
        assert (first["student"] != other["student"]).any(axis=1).sum() > BATCH // 2


def test_masks_of_a_step_are_those_of_the_folded_key() -> None:
    """So that pictures and checks can draw the masks of any step again."""
    masks = pretraining().masks(jax.random.fold_in(jax.random.key(3), 7), BATCH)
    jax.tree.map(np.testing.assert_array_equal, drawn(seed=3, at=7), masks._asdict())


def test_accumulation_keeps_every_example_with_its_own_masks() -> None:
    """Microbatch m takes examples m, m + accum, …: each device keeps its own; masks travel along."""
    pairs = []

    class Record(Pretraining):
        def loss_fn(self, params: Any, teacher_params: Any, pixels: Any, masks: Any) -> Any:
            jax.debug.callback(lambda x, s: pairs.append((x, s)), pixels[:, 0, 0, 0, 0], masks.student)
            return 0.0 * params.sum(), {}

    fields = {f.name: getattr(pretraining(), f.name) for f in dataclasses.fields(Pretraining)}
    pixels = np.zeros((BATCH, *pretraining().input_shape), np.uint8)
    pixels[:] = np.arange(BATCH)[:, None, None, None, None]
    state = TrainState.create(jnp.ones(2), optax.sgd(0.1))
    pure = make_step(Record(**fields), optax.sgd(0.1), optax.constant_schedule(0.1), 3, accum_steps=4)
    jax.block_until_ready(jax.jit(pure)(state, {}, {"pixels": pixels}))
    jax.effects_barrier()
    masks = pretraining().masks(jax.random.fold_in(jax.random.key(3), 0), BATCH)
    examples = np.concatenate([x for x, _ in pairs])
    np.testing.assert_array_equal(np.sort(examples), np.arange(BATCH))
    np.testing.assert_array_equal(np.concatenate([s for _, s in pairs]), masks.student[examples])


def metrics_of(**changes: Any) -> tuple[Any, Any]:
    """Shapes of the new state and the metrics of a config's step."""
    c = config(**changes)
    run = Pretraining.from_config(c)
    learning_rate = optim.schedule(c, 20, 10.0)
    transformation = optim.optimizer(c, learning_rate)
    params = jax.eval_shape(run.init, jax.random.key(0))
    state = jax.eval_shape(lambda p: TrainState.create(p, transformation), params)
    teacher = jax.eval_shape(run.init_frozen, jax.random.key(0))
    pixels = jax.ShapeDtypeStruct((BATCH, *run.input_shape), np.uint8)
    pure = make_step(run, transformation, learning_rate, 0, c.accum_steps)
    return jax.eval_shape(pure, state, teacher, {"pixels": pixels})


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"method": "mae"}, {"loss_rec"}),
        ({"method": "mae", "accum_steps": 2}, {"loss_rec"}),  # no token that the teacher alone sees
        ({"method": "dmae"}, {"loss_rec", "loss_direct"}),
        ({"loss__gen_weight": 0.0}, {"loss_rec", "loss_direct"}),
        ({"loss__direct_weight": 0.0}, {"loss_rec", "loss_gen"}),
        ({"accum_steps": 2}, {"loss_rec", "loss_direct", "loss_gen"}),
    ],
)
def test_only_the_parts_of_the_method_are_computed(changes: dict[str, Any], parts: set[str]) -> None:
    _, metrics = metrics_of(**changes)
    assert metrics.keys() == {"loss", "lr", "grad_norm"} | parts
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())


def test_mae_needs_no_teacher() -> None:
    run = Pretraining.from_config(config(method="mae"))
    assert run.teacher is None
    assert run.init_frozen(jax.random.key(0)) == {}
    assert run.student_visible == run.teacher_visible


@pytest.mark.parametrize("accum_steps", [1, 2])
def test_bfloat16_compute_keeps_weights_moments_and_loss_in_float32(accum_steps: int) -> None:
    state, metrics = metrics_of(model__dtype="bfloat16", accum_steps=accum_steps)
    floats = [leaf.dtype for leaf in jax.tree.leaves((state, metrics)) if leaf.dtype != jnp.int32]
    assert set(floats) == {np.dtype("float32")}


def test_the_bfloat16_loss_is_close_to_the_float32_loss() -> None:
    state, teacher, batch = start()
    masks = pretraining().masks(jax.random.key(0), BATCH)
    half = Pretraining.from_config(config(model__dtype="bfloat16"))

    def loss(run: Pretraining) -> Any:
        return jax.jit(run.loss_fn)(state.params, teacher, batch["pixels"], masks)

    exact, rounded = jax.device_get((loss(pretraining()), loss(half)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.03), exact, rounded)
    assert exact[0] != rounded[0]


def test_targets_are_those_of_the_hidden_patches_in_order() -> None:
    _, _, batch = start()
    run = dataclasses.replace(pretraining(), loss=dataclasses.replace(pretraining().loss, target="pixels"))
    at = np.array([[5, 0]] * BATCH)
    targets = np.asarray(run.targets(batch["pixels"], at))
    size = run.patch[1]
    image = (batch["pixels"] / 255 - np.array(run.mean)) / np.array(run.std)
    fifth = image[:, :, size : 2 * size, size : 2 * size].reshape(BATCH, -1)  # row 1, column 1 of 4 by 4
    np.testing.assert_allclose(targets[:, 0], fifth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["amd", "dmae"])
def test_registers_are_no_part_of_what_a_student_learns(method: str) -> None:
    """Features of the CLS token where it is aligned, and of as many patches as the student has."""
    teacher = {"teacher__registers": 3, "teacher__positions": "rotary", "teacher__patch_size": 7}
    run = Pretraining.from_config(config(method=method, **teacher))
    masks = run.masks(jax.random.key(0), 2)
    pixels = np.zeros((2, *run.input_shape), np.uint8)
    params, frozen = (jax.eval_shape(init, jax.random.key(0)) for init in (run.init, run.init_frozen))
    output = jax.eval_shape(run.student_output, params, pixels, masks)
    assert frozen["registers"].shape == (3, 32)
    assert frozen["patch_embed"]["kernel"].shape == (7 * 7 * 3, 32)
    direct, gen = jax.eval_shape(run.aligned_teacher, frozen, pixels, masks)
    assert [x.shape for x in direct] == [x.shape for x in output.direct]
    assert [x.shape for x in gen] == [x.shape for x in output.gen]
