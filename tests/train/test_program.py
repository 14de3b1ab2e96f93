"""A run's program is known from its config and mesh alone, and is the one that runs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax import sharding
from amd_jax.errors import ConfigError
from amd_jax.planning.counting import count
from amd_jax.train import program, setup
from amd_jax.trees import path_name
from configs import finetune_vitb_in1k, kd_vitb_in1k, vitb_in1k
from tests.runs import tiny
from tests.tpu import answer, needs_libtpu

ONE = {"devices": jax.devices()[:1]}


def abstract(tree: object) -> object:
    """Shapes and types."""
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def test_a_published_config_is_built_without_data_weights_or_memory() -> None:
    """ViT-L, ViT-B and a batch of 4,096 photographs on eight devices: nothing is allocated."""
    config = vitb_in1k.get_config()
    config.teacher.weights = "not asked for"
    config.mesh.fsdp = 2
    run = program.build(config, sharding.make_mesh(-1, 2, 1), examples=1_281_167, classes=1000)
    assert run.total_steps == int(800 * 1_281_167 / 4096)
    assert run.batch["pixels"].shape == (4096, 1, 224, 224, 3)
    assert run.batch["pixels"].dtype == jnp.uint8
    assert run.flops_per_step == pytest.approx(4096 * 1018e9 / 8, rel=0.01)
    qkv = run.state.params["encoder"]["blocks"]["layers"]["attn"]["qkv"]
    assert qkv.sharding.shard_shape(qkv.shape) == (12, 384, 3, 12, 64)


def test_a_run_has_the_state_teacher_and_step_of_its_program(tmp_path: Path) -> None:
    mesh = sharding.make_mesh(**ONE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *args: ONE["devices"])
        run = setup.prepare(tiny(), str(tmp_path))
    again = program.build(tiny(), mesh, len(run.source), run.source.num_classes)
    assert abstract(run.state) == abstract(again.state)
    assert abstract(run.teacher) == abstract(again.teacher)
    assert run.program.lower().as_text() == again.lower().as_text()


def test_the_types_are_those_of_the_meshs_devices_and_teachers_matrices_are_stored_in_them() -> None:
    """In bfloat16 as on a TPU; norms and positions stay float32, as does all that is trained."""
    config = kd_vitb_in1k.get_config("smoke")
    config.model.dtype = "bfloat16"
    run = program.build(config, sharding.make_mesh(**ONE), examples=10_000, classes=10)
    layers = run.teacher["encoder"]["blocks"]["layers"]
    assert layers["attn"]["qkv"].dtype == layers["mlp"]["fc1"]["kernel"].dtype == jnp.bfloat16
    assert layers["norm1"]["scale"].dtype == run.teacher["encoder"]["positions"].dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(run.state.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("config", [vitb_in1k, kd_vitb_in1k])
def test_a_teacher_in_eight_bits_has_the_shapes_of_the_step_and_leaves_the_student_as_it_is(
    config: Any,
) -> None:
    """Its blocks' kernels, drawn or from a file's floats; nothing that is trained, and not the embedding."""
    plain, eight = config.get_config("smoke"), config.get_config("smoke")
    eight.teacher.dtype = "int8"
    mesh = sharding.make_mesh(**ONE)
    before, run = (program.build(c, mesh, examples=10_000, classes=10) for c in (plain, eight))
    of_file = jax.tree.map(lambda x: np.ones(x.shape, np.float32), before.teacher)
    assert abstract(program.cast_teacher(run.config, of_file)) == abstract(run.teacher)
    leaves, _ = jax.tree_util.tree_flatten_with_path(run.teacher.get("encoder", run.teacher))
    kept = [path_name(path) for path, x in leaves if x.dtype == jnp.int8]
    names = ("attn/qkv", "attn/proj/kernel", "mlp/fc1/kernel", "mlp/fc2/kernel")
    assert sorted(kept) == sorted(f"blocks/layers/{name}/values" for name in names)
    assert abstract(run.state) == abstract(before.state)
    steps = (jax.eval_shape(r.step, r.state, r.teacher, r.batch) for r in (before, run))
    assert abstract(next(steps)) == abstract(next(steps))


def test_the_temporaries_of_a_step_fall_with_accumulation() -> None:
    """No float copy of the whole batch is made, for mixing or for the passes."""

    def temporaries(accum_steps: int) -> int:
        config = finetune_vitb_in1k.get_config("smoke")
        config.batch_size, config.accum_steps = 256, accum_steps
        run = program.build(config, sharding.make_mesh(**ONE), examples=10_000, classes=10)
        compiled = run.lower().compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(16) < temporaries(1) / 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 1e-9, "steps": 0}, "is less than one step"),
        ({"batch_size": 12}, "12 examples a pass do not divide over 8 devices"),
        ({"probe__every_epochs": 1.0, "eval__batch_size": 100}, "eval.batch_size=100 does not divide"),
        ({"model__attention": "cudnn"}, "needs a GPU; this is cpu"),
    ],
)
def test_what_cannot_run_on_the_mesh_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        program.build(tiny(**changes), sharding.make_mesh(), examples=10_000, classes=10)


@needs_libtpu
@pytest.mark.slow
def test_a_cpu_host_builds_and_compiles_the_step_of_a_tpu() -> None:
    """In the TPU's types, whatever this host computes in."""
    found = answer("tests.tpu_program")
    assert found["dtype"] == "bfloat16"
    assert found["teacher"] == ["bfloat16", "float32"]  # kernels, biases
    assert found["bfloat16"]
    assert found["all-reduce"]
    assert found["temporaries"] > 0


def assert_added_up_once(sums: list[Any], parameters: int) -> None:
    """Every gradient once, in float32; there are a few metrics beside them."""
    assert {dtype for dtype, *_ in sums} == {"f32"}
    total = sum(size for _, size, *_ in sums)
    assert parameters <= total < 1.01 * parameters


@needs_libtpu
@pytest.mark.slow
def test_chips_add_up_every_gradient_once_in_float32_while_they_go_on() -> None:
    """Layer by layer, a part of each during the backward pass of the rest."""
    found = answer("tests.tpu_program")["layer by layer"]
    assert_added_up_once(found["sums"], found["parameters"])
    overlapped = sum(size for _, size, _, overlapped in found["sums"] if overlapped)
    assert overlapped > 0.25 * found["parameters"]
    assert any(loop for _, _, loop, _ in found["sums"])


@needs_libtpu
@pytest.mark.slow
def test_with_accumulation_chips_add_up_after_the_last_pass() -> None:
    found = answer("tests.tpu_program")["accumulated"]
    assert_added_up_once(found["sums"], found["parameters"])
    assert not any(loop for _, _, loop, _ in found["sums"])


def test_maes_masks_have_an_empty_part_which_passes_and_devices_share_too() -> None:
    run = program.build(
        tiny(method="mae", accum_steps=2, batch_size=16),
        sharding.make_mesh(8, 1, 1),
        examples=10_000,
        classes=10,
    )
    assert "while" in run.lower().as_text()


def test_eight_devices_add_up_every_gradient_once_after_all_passes() -> None:
    config = vitb_in1k.get_config("smoke")
    config.accum_steps = 4
    run = program.build(config, sharding.make_mesh(8, 1, 1), examples=1000, classes=10)
    found = count(run.lower().compile().as_text()).collectives
    sums = [(c.dtype, c.bytes * c.times, c.loop) for c in found if c.kind == "all-reduce"]
    assert_added_up_once(sums, 4 * sum(x.size for x in jax.tree.leaves(run.state.params)))
    assert not any(loop for _, _, loop in sums)
