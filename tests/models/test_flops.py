"""Counted operations against the matrix products that JAX actually traces."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from amd_jax.models import build, flops
from amd_jax.models.vit import ViT
from amd_jax.steps.pretrain import Pretraining
from configs import demo, vitb_in1k


def traced(function: Any, *arguments: Any) -> int:
    """Multiply-adds times two of every matrix product in `function`.

    A scan's body counts as often as it runs; of the ways to compute one thing, one counts.
    """

    def count(jaxpr: Any) -> int:
        total = 0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                (contracting, _), _ = eqn.params["dimension_numbers"]
                shape = eqn.invars[0].aval.shape
                total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contracting)
            inside = [
                count(part.jaxpr if isinstance(part, core.ClosedJaxpr) else part)
                for value in eqn.params.values()
                for part in (value if isinstance(value, tuple | list) else (value,))
                if isinstance(part, core.ClosedJaxpr | core.Jaxpr)
            ]
            if eqn.primitive.name == "cond":
                total += max(inside)
            else:
                total += sum(inside) * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
        return total

    return count(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_the_tracer_counts_a_scanned_product_every_time() -> None:
    x, w = jnp.ones((3, 4)), jnp.ones((5, 4, 4))
    assert traced(lambda x, w: jax.lax.scan(lambda a, b: (a @ b, None), x, w)[0], x, w) == 5 * 2 * 3 * 4 * 4


@pytest.mark.parametrize("cls_token", [True, False])
def test_an_encoders_forward_pass_is_counted_exactly(cls_token: bool) -> None:
    config = vitb_in1k.get_config("")
    config.student.cls_token = cls_token
    encoder = build.encoder(config, "student")
    patches, at = jnp.zeros((1, 49, 768)), jnp.zeros((1, 49), int)
    params = jax.eval_shape(ViT(encoder).init, jax.random.key(0), patches, at)
    assert flops.encoder(encoder, 49, 768) == traced(ViT(encoder).apply, params, patches, at)


def step_counts(config: Any) -> tuple[int, int, int, int]:
    """Of one example: the counted step, and the traced student, teacher, and loss with its gradient."""
    run = Pretraining.from_config(config)
    masks = run.masks(jax.random.key(0), 1)
    pixels = np.zeros((1, *run.input_shape), np.uint8)
    student = jax.eval_shape(run.init, jax.random.key(0))
    teacher = jax.eval_shape(run.init_frozen, jax.random.key(0))
    forward = traced(run.student_output, student, pixels, masks)
    teacher_forward = traced(run.teacher_features, teacher, pixels, masks) if run.teacher else 0
    whole = traced(jax.value_and_grad(run.loss_fn, has_aux=True), student, teacher, pixels, masks)
    return run.flops_per_example, forward, teacher_forward, whole


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vitb", {}),
        ("vitb", {"student.cls_token": False}),
        ("vitb", {"data.frames": 4, "model.tubelet": 2}),
        ("vitb", {"method": "dmae", "align.projection": "linear_bias"}),
        ("vitb", {"teacher.patch_size": 14, "teacher.mlp": "swiglu", "teacher.registers": 4}),
        ("demo", {}),
        ("demo", {"method": "mae"}),
    ],
)
def test_a_step_is_three_times_the_student_and_once_the_teacher(name: str, changes: dict[str, Any]) -> None:
    """To 1 %: the projections of the CLS token are not counted."""
    config = {"vitb": vitb_in1k.get_config, "demo": demo.get_config}[name]()
    config.update_from_flattened_dict(changes)
    counted, student, teacher, whole = step_counts(config)
    assert counted == pytest.approx(3 * student + teacher, rel=0.01)
    # The gradient itself needs a little less: nobody asks for that of the pixels.
    assert 0.93 * counted < whole < 1.01 * counted


def test_the_compiler_counts_the_same_for_an_unrolled_forward_pass() -> None:
    """XLA adds norms, softmax and activations to the products: a few per cent at this width."""
    config = vitb_in1k.get_config("smoke")
    config.teacher.width, config.teacher.heads, config.teacher.depth = 256, 2, 2
    encoder = build.encoder(config, "teacher")
    patches, at = jnp.zeros((1, 16, 192)), jnp.zeros((1, 16), int)
    params = jax.eval_shape(ViT(encoder).init, jax.random.key(0), patches, at)
    # A tap after every frozen block leaves scans of one block each, which XLA does not keep as loops.
    forward = jax.jit(lambda p, x, at: ViT(encoder).apply(p, x, at, (1, 2)))
    cost = forward.lower(params, patches, at).compile().cost_analysis()
    assert cost["flops"] == pytest.approx(flops.encoder(encoder, 16, 192), rel=0.05)
