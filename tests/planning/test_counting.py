"""What a compiled program computes and sends, counted from its text, against counts by hand and XLA's own."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amd_jax.planning.counting import Collective, Counts, count
from amd_jax.sharding import make_mesh
from amd_jax.train import program
from configs import vitb_in1k

MESH = make_mesh(8, 1, 1)
ROWS = NamedSharding(MESH, P("data"))


def compiled(function: Any, *arguments: Any) -> Any:
    """A function compiled for this machine's eight devices."""
    return jax.jit(function).lower(*arguments).compile()


def abstract(*shape: int, dtype: Any = jnp.float32, where: Any = None) -> jax.ShapeDtypeStruct:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def on_each(function: Any, out: P) -> Any:
    """A function of each device's own rows."""
    return jax.shard_map(function, mesh=MESH, in_specs=P("data"), out_specs=out, check_vma=False)


def layers(x: jax.Array, kernels: jax.Array) -> jax.Array:
    """A product a layer, in a loop."""
    return jax.lax.scan(lambda x, kernel: (x @ kernel, None), x, kernels)[0]


def total(counts: Counts, kind: str, loop: bool | None = None) -> tuple[int, int]:
    """Number and bytes of a kind of collective, in loops or out of them."""
    found = [c for c in counts.collectives if c.kind == kind and loop in (None, c.loop)]
    return sum(c.times for c in found), sum(c.bytes * c.times for c in found)


SCANNED = (abstract(64, 32, where=ROWS), abstract(5, 32, 32, where=NamedSharding(MESH, P())))


def test_a_loop_counts_as_often_as_it_turns() -> None:
    counts = count(compiled(layers, *SCANNED).as_text())
    assert counts.flops == 5 * 2 * (64 / 8) * 32 * 32
    assert counts.unknown == 0


def test_the_turns_are_found_where_the_compiler_does_not_write_them_down() -> None:
    text = compiled(layers, *SCANNED).as_text()
    silent = re.sub(r'"known_trip_count":\{[^}]*\},?', "", text)
    assert silent != text
    assert count(silent) == count(text)


def test_a_loop_of_unknown_length_is_counted_once_and_said() -> None:
    def halve(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x @ jnp.eye(32) / 2, x)

    counts = count(compiled(halve, abstract(8, 32)).as_text())
    assert counts.unknown == 1
    assert counts.flops == 2 * 8 * 32 * 32


def test_loops_in_loops_multiply() -> None:
    def twice(x: jax.Array, kernels: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 3, lambda _, x: layers(x, kernels), x)

    assert count(compiled(twice, *SCANNED).as_text()).flops == 3 * 5 * 2 * 8 * 32 * 32


def test_products_are_what_xla_counts_without_loops() -> None:
    def chain(x: jax.Array, kernels: jax.Array) -> jax.Array:
        for kernel in kernels:
            x = jnp.einsum("bti,bio->bto", x, kernel)
        return x

    program = compiled(chain, abstract(4, 8, 16), abstract(3, 4, 16, 16))
    assert count(program.as_text()).flops == program.cost_analysis()["flops"] == 3 * 2 * 4 * 8 * 16 * 16


@pytest.mark.parametrize(
    "options",
    [
        {"window_strides": (1, 1), "padding": "VALID"},
        {"window_strides": (2, 3), "padding": "SAME"},
        {"window_strides": (1, 1), "padding": ((2, 1), (0, 3)), "rhs_dilation": (2, 1)},
        {"window_strides": (1, 2), "padding": ((1, 1), (2, 2)), "lhs_dilation": (2, 3)},
    ],
)
def test_convolutions_are_what_xla_counts(options: dict[str, Any]) -> None:
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, **options)

    lowered = jax.jit(convolve).lower(abstract(2, 4, 9, 10), abstract(5, 4, 3, 3))
    text = lowered.compile().as_text()
    assert count(text).flops == pytest.approx(lowered.cost_analysis()["flops"])


def test_collectives_in_and_out_of_loops_with_type_group_and_bytes() -> None:
    def body(x: jax.Array) -> jax.Array:
        x = jax.lax.fori_loop(0, 3, lambda i, x: jax.lax.psum(x * i, "data"), x)
        whole = jax.lax.psum(x.astype(jnp.int32), "data")
        return jax.lax.all_gather(x + whole, "data").sum(0)

    counts = count(compiled(on_each(body, P()), abstract(64, 32, where=ROWS)).as_text())
    assert total(counts, "all-reduce", loop=True) == (3, 3 * 8 * 32 * 4)
    assert total(counts, "all-reduce", loop=False) == (1, 8 * 32 * 4)
    assert total(counts, "all-gather") == (1, 64 * 32 * 4)
    assert {(c.dtype, c.loop) for c in counts.collectives} == {("f32", True), ("s32", False), ("f32", False)}
    assert {c.group for c in counts.collectives} == {8}


def test_scattered_and_exchanged_arrays() -> None:
    def body(x: jax.Array) -> jax.Array:
        part = jax.lax.psum_scatter(x, "data", tiled=True)  # [1, 32] of [8, 32]
        across = jax.lax.all_to_all(x, "data", 1, 1, tiled=True)
        return part + across + jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)])

    counts = count(compiled(on_each(body, P("data")), abstract(64, 32, where=ROWS)).as_text())
    assert total(counts, "reduce-scatter") == (1, 8 * 32 * 4)
    assert total(counts, "all-to-all") == (1, 8 * 32 * 4)
    assert total(counts, "collective-permute") == (1, 8 * 32 * 4)


def test_what_a_ring_sends() -> None:
    def sent(kind: str) -> float:
        return Collective(kind, "f32", 800, 8, 2, False, False).sent

    assert sent("all-reduce") == 2 * 2 * 700
    assert sent("all-gather") == sent("reduce-scatter") == sent("all-to-all") == 2 * 700
    assert sent("collective-permute") == 2 * 800


@pytest.mark.slow
def test_a_training_step_computes_what_the_model_counts() -> None:
    """Layers in loops in a loop of passes; the gradient of the pixels is nobody's, so it is a little less."""
    config = vitb_in1k.get_config("smoke")
    config.accum_steps = 2
    run = program.build(config, MESH, examples=1000, classes=10)
    counts = count(run.lower().compile().as_text())
    assert counts.flops == pytest.approx(run.flops_per_step / 8, rel=0.05)
    assert counts.unknown == 0


# Operations as a TPU's compiler writes them, shortened.
HERE = Path(__file__).parent
TPU = (HERE / "tpu_step.hlo").read_text()


def test_a_tpus_collectives_over_several_operations_are_one_and_overlapped() -> None:
    gathered, scattered = count(TPU).collectives
    assert (gathered.kind, gathered.bytes, gathered.group) == ("all-gather", 2 * 16 * 128 * 2, 2)
    assert gathered.overlapped
    assert (scattered.kind, scattered.bytes, scattered.group) == ("reduce-scatter", 64 * 32 * 2, 2)
    assert not scattered.overlapped


def test_a_tpus_batched_product_is_no_more_for_being_a_dilated_convolution() -> None:
    assert count(TPU).flops == 2 * 4 * 2 * 5 * 5 * 16


def test_traffic_is_what_is_read_and_written_and_does_not_lie_near() -> None:
    """Of the fusions only results and what is scattered; q and k once, their product once."""
    fusions = 2 * 8 * 128 * 2 + (64 * 32 + 32 * 32) * 2
    products = (2 * 4 * 5 * 2 * 16 + 4 * 2 * 5 * 5) * 4
    assert count(TPU).traffic == fusions + products


def test_of_a_stack_that_is_cut_in_a_loop_the_cuts_are_read() -> None:
    """5 layers of 32 × 32, and activations of at most a few times 8 × 32 in each."""
    counts = count(compiled(layers, *SCANNED).as_text())
    assert 5 * 32 * 32 * 4 <= counts.traffic <= 5 * (2 * 32 * 32 + 10 * 8 * 32) * 4


def test_products_in_eight_bits_are_told_from_others_and_of_their_stack_a_layer_is_read() -> None:
    """As a TPU's compiler writes them, the scales in the product's fusion, the stack in tiles for bytes."""
    counts = count((HERE / "tpu_eight_bits.hlo").read_text())
    assert counts.eight_bit == 2 * 40 * 64 * 256
    assert counts.flops == counts.eight_bit + 2 * 40 * 256 * 8
    assert counts.traffic == 64 * 256


def test_text_that_is_no_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no entry"):
        count("HloModule nothing")
