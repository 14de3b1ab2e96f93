"""A mesh changes where arrays lie and nothing else: eight CPU devices against one."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from amd_jax.sharding import global_batch, make_mesh, partition_spec
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train import program
from amd_jax.trees import path_name
from configs import vitb_in1k
from tests.runs import assert_close
from tests.tpu import answer, needs_libtpu
from tests.tpu_meshes import TOPOLOGIES

BATCH = 16


def config(accum_steps: int = 1) -> ConfigDict:
    """The smoke config with one aligned layer, and steps large enough to see."""
    out = vitb_in1k.get_config("smoke")
    out.align.student_layers, out.align.teacher_layers, out.align.generator_depth = (2,), (2,), 1
    # Adam turns the rounding errors of vanishing gradients into whole steps; a large epsilon does not.
    out.optim.warmup_lr, out.optim.base_lr, out.optim.clip, out.optim.eps = 0.1, 0.1, 1.0, 1e-3
    out.optim.warmup_steps = 20  # of 20: the rate stays at 0.1
    out.batch_size, out.accum_steps = BATCH, accum_steps
    return out


@functools.cache
def weights() -> tuple[Any, Any]:
    """Student and teacher parameters, all away from zero."""
    run = Pretraining.from_config(config())
    rng = np.random.default_rng(0)

    def draw(init: Any) -> Any:
        shapes = jax.eval_shape(init, jax.random.key(0))
        return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)

    return draw(run.init), draw(run.init_frozen)


@functools.cache
def two_steps(mesh_shape: tuple[int, int, int] | None, accum_steps: int) -> tuple[Any, Any, Any]:
    """Metrics, state and teacher after two steps, placed as `setup.prepare` places them; None: one device."""
    c = config(accum_steps)
    mesh = make_mesh(*mesh_shape) if mesh_shape else make_mesh(devices=jax.devices()[:1])
    run = program.build(c, mesh, examples=10 * BATCH, classes=10)
    params, teacher = weights()
    blank = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), run.state)
    state = jax.device_put(blank.replace(params=params), program.where(run.state))
    teacher = jax.device_put(teacher, program.where(run.teacher))
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (2, BATCH, *run.task.input_shape), dtype=np.uint8)
    step = run.lower().compile()
    metrics = []
    for batch in pixels:
        state, values = step(state, teacher, global_batch({"pixels": batch}, mesh))
        metrics.append(jax.block_until_ready(values))  # or the devices may never meet
    return jax.device_get(metrics), jax.block_until_ready(state), teacher


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh_shape", "accum_steps"),
    [((8, 1, 1), 1), ((8, 1, 1), 2), ((1, 8, 1), 1), ((4, 1, 2), 1), ((2, 2, 2), 2)],
    ids=["data", "data accumulated", "fsdp", "tensor", "mixed and accumulated"],
)
def test_eight_devices_compute_what_one_computes(mesh_shape: tuple[int, int, int], accum_steps: int) -> None:
    metrics, state, _ = two_steps(mesh_shape, accum_steps)
    expected_metrics, expected_state, _ = two_steps(None, 1)
    assert_close(metrics, expected_metrics)
    assert_close(jax.device_get(state), jax.device_get(expected_state))
    moved = jax.tree.map(lambda a, b: abs(np.asarray(a) - b).max(), state.params, weights()[0])
    assert moved["encoder"]["blocks"]["layers"]["mlp"]["fc1"]["kernel"] > 1e-4


def shard_shape(array: jax.Array) -> tuple[int, ...]:
    """What one device holds, which must be the same on all."""
    shapes = {shard.data.shape for shard in array.addressable_shards}
    assert len(shapes) == 1
    assert len(array.addressable_shards) == 8
    return shapes.pop()


@pytest.mark.slow
def test_fsdp_leaves_each_device_an_eighth_of_kernels_moments_and_teacher() -> None:
    """After two steps, so it is what the step keeps and not only how the state was placed."""
    _, state, teacher = two_steps((1, 8, 1), 1)
    adam = [
        s for s in jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(s, "mu")
    ]
    assert len(adam) == 1
    for params in (state.params, adam[0].mu, adam[0].nu):
        layers = params["encoder"]["blocks"]["layers"]
        assert shard_shape(layers["mlp"]["fc1"]["kernel"]) == (2, 32 // 8, 128)
        assert shard_shape(layers["mlp"]["fc2"]["kernel"]) == (2, 128, 32 // 8)
        assert shard_shape(layers["attn"]["qkv"]) == (2, 32 // 8, 3, 2, 16)
        assert shard_shape(layers["norm1"]["scale"]) == (2, 32)
    assert shard_shape(teacher["blocks"]["layers"]["mlp"]["fc1"]["kernel"]) == (2, 32 // 8, 128)


@pytest.mark.slow
def test_tensor_shares_heads_and_mlp_features() -> None:
    _, state, _ = two_steps((4, 1, 2), 1)
    layers = state.params["encoder"]["blocks"]["layers"]
    assert shard_shape(layers["attn"]["qkv"]) == (2, 32, 3, 1, 16)
    assert shard_shape(layers["attn"]["q_bias"]) == (2, 1, 16)
    assert shard_shape(layers["attn"]["proj"]["kernel"]) == (2, 16, 32)
    assert shard_shape(layers["mlp"]["fc1"]["kernel"]) == (2, 32, 64)
    # One head of 32 features cannot be shared.
    assert shard_shape(state.params["generator_0"]["blocks"]["layers"]["attn"]["qkv"]) == (1, 32, 3, 1, 32)


@pytest.mark.parametrize("train_mask_tokens", [True, False])
def test_moments_lie_where_their_parameters_lie(train_mask_tokens: bool) -> None:
    """Also inside the wrappers of an optimiser that freezes some parameters."""
    c = config()
    c.align.train_mask_tokens = train_mask_tokens
    state = program.build(c, make_mesh(2, 2, 2), examples=80, classes=10).state
    of_params = {path_name(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
    seen = dict.fromkeys(of_params, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        if leaf.shape:
            name = next(n for n in of_params if path_name(path).endswith(f"/{n}"))
            assert leaf.sharding == of_params[name].sharding, name
            assert leaf.shape == of_params[name].shape, name
            seen[name] += 1
    frozen = set() if train_mask_tokens else {"generator_0/mask_token"}
    assert seen == {name: 0 if name in frozen else 2 for name in of_params}


LAYER = "params/encoder/blocks/layers"


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        (f"{LAYER}/attn/qkv", (12, 768, 3, 12, 64), P(None, "fsdp", None, "tensor", None)),
        (f"{LAYER}/attn/qkv", (12, 768, 3, 3, 256), P(None, "fsdp", None, None, None)),  # three heads
        (f"{LAYER}/attn/v_bias", (12, 12, 64), P(None, "tensor", None)),
        (f"{LAYER}/attn/proj/kernel", (12, 768, 768), P(None, "tensor", "fsdp")),
        (f"{LAYER}/mlp/fc1/kernel", (12, 768, 3072), P(None, "fsdp", "tensor")),
        (f"{LAYER}/mlp/fc1/kernel", (12, 769, 3072), P(None, None, "tensor")),
        (f"{LAYER}/mlp/fc2/bias", (12, 768), P()),
        ("params/encoder/patch_embed/kernel", (768, 768), P(None, "fsdp")),
        ("params/decoder_pred/kernel", (512, 147), P(None, None)),
        ("params/encoder/cls_token", (768,), P()),
        ("opt_state/1/mu/projection_0/kernel", (384, 1024), P(None, "fsdp")),
        ("opt_state/1/v_row/mlp/fc1/kernel", (12, 768), P()),  # shares a name, not a shape
        ("step", (), P()),
        ("blocks/layers/attn/qkv/values", (24, 64, 3, 4, 16), P(None, "fsdp", None, "tensor", None)),
        ("blocks/layers/attn/qkv/scale", (24, 1, 3, 4, 16), P(None, None, None, "tensor", None)),
        ("blocks/layers/mlp/fc1/kernel/values", (24, 64, 256), P(None, "fsdp", "tensor")),
        ("blocks/layers/norm1/scale", (24, 64), P()),
    ],
)
def test_a_rule_gives_up_an_axis_that_does_not_divide(path: str, shape: tuple[int, ...], spec: P) -> None:
    assert partition_spec(path, shape, make_mesh(2, 2, 2)) == spec


def test_a_mesh_takes_the_devices_that_are_left() -> None:
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(-1, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(2, -1).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert dict(make_mesh(devices=jax.devices()[:2]).shape) == {"data": 2, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (8, 2, 1), (-1, -1, 1), (-1, 3, 1), (-1, 16, 1), (0, 8, 1)])
def test_a_mesh_that_does_not_fit_is_an_error_that_names_its_sizes(sizes: tuple[int, int, int]) -> None:
    data, fsdp, tensor = sizes
    with pytest.raises(ValueError, match=f"data={data}, fsdp={fsdp}, tensor={tensor} does not fit 8"):
        make_mesh(*sizes)


def of_processes(*counts: int) -> list[Any]:
    """As many devices of each process; good for nothing but being counted."""
    return [SimpleNamespace(process_index=p) for p, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize(
    ("devices", "tensor", "words"),
    [
        (of_processes(2, 2), 4, "tensor=4 does not divide the 2 devices of a process"),
        (of_processes(1, 1), 2, "tensor=2 does not divide the 1 devices of a process"),
        (of_processes(3, 1), 1, r"unequal numbers of devices, \[1, 3\]"),
    ],
)
def test_a_mesh_that_would_share_an_example_between_processes_is_refused(
    devices: list[Any], tensor: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_mesh(tensor=tensor, devices=devices)


@needs_libtpu
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_on_every_tpu_each_process_holds_its_part_of_the_batch_on_every_mesh(name: str) -> None:
    """Only tensor is limited, to the devices of a host."""
    found = answer("tests.tpu_meshes")[name]
    host = found["devices"] // found["processes"]
    if found["processes"] == 1:
        assert found["problems"] == []
    for _, _, tensor, words in found["problems"]:
        assert tensor > host
        assert f"tensor={tensor} does not divide the {host} devices of a process" in words


def test_examples_are_shared_over_data_and_fsdp_and_copied_over_tensor() -> None:
    pixels = np.arange(8 * 3).reshape(8, 3)
    array = global_batch({"pixels": pixels}, make_mesh(2, 2, 2))["pixels"]
    np.testing.assert_array_equal(array, pixels)
    rows = sorted(tuple(np.asarray(shard.data)[:, 0] // 3) for shard in array.addressable_shards)
    assert rows == sorted([(0, 1), (2, 3), (4, 5), (6, 7)] * 2)
