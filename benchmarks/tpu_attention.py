"""What attention moves to and from a TPU's memory as compiled: XLA's, by heads, and jax's splash kernel.

    pip install -r requirements-plan.txt
    python benchmarks/tpu_attention.py

Forward and backward pass of one layer in bfloat16 on one chip of v5e, in the shapes that a chip has in the
recipes. No TPU is needed; prints rows of a table.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from amd_jax.planning.target import ENVIRONMENT, devices, target

os.environ.update(ENVIRONMENT)

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from amd_jax.models.attention import attend
from amd_jax.planning import counting

# Examples of a chip, tokens, heads, width of a head.
SHAPES = {
    "`vitb_in1k`, student's encoder": (16, 50, 12, 64),
    "`vitb_in1k`, teacher": (16, 99, 16, 64),
    "`vitb_in1k`, decoder": (16, 197, 6, 64),
    "`vitb_k400`, teacher": (8, 392, 16, 64),
    "`vitb_k400`, decoder": (8, 1568, 6, 64),
    "`finetune_vitb_k400`": (4, 1568, 12, 64),
}
LANES = 128  # the kernel takes tokens by as many


def by_splash(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Tokens are padded to a multiple of the lanes; those that are added are another segment."""
    batch, tokens, heads, width = q.shape
    padded = -(-tokens // LANES) * LANES
    block = next(n for n in range(min(padded, 1024), 0, -LANES) if padded % n == 0)
    sizes = splash.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_kv_compute"), block),
        **dict.fromkeys(("block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute"), block),
        use_fused_bwd_kernel=True,
    )
    everything = masks.MultiHeadMask([masks.FullMask((padded, padded))] * heads)
    kernel = splash.make_splash_mha(everything, head_shards=1, q_seq_shards=1, block_sizes=sizes)
    segment = jnp.broadcast_to(jnp.arange(padded) >= tokens, (batch, padded)).astype(jnp.int32)

    def heads_first(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, padded - tokens), (0, 0), (0, 0))).swapaxes(1, 2)

    scaled = q * jnp.asarray(width**-0.5, q.dtype)
    out = jax.vmap(kernel)(*map(heads_first, (scaled, k, v)), splash.SegmentIds(segment, segment))
    return out.swapaxes(1, 2)[:, :tokens]


WAYS: dict[str, Callable[..., jax.Array]] = {
    "XLA's": functools.partial(attend, implementation="xla"),
    "by heads": functools.partial(attend, implementation="heads"),
    "splash": by_splash,
}


def megabytes(way: Callable[..., jax.Array], shape: tuple[int, ...], chip: Any) -> float:
    """To and from memory in both passes, as a plan counts them."""

    def both(q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> Any:
        out, pull = jax.vjp(way, q, k, v)
        return out, pull(g)

    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=jax.sharding.SingleDeviceSharding(chip))
    return counting.count(jax.jit(both).lower(x, x, x, x).compile().as_text()).traffic / 1e6


def main() -> None:
    chip = devices(target("v5e:2x2"))[0]
    print("| MB of a layer | examples, tokens, heads | " + " | ".join(WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    for name, shape in SHAPES.items():
        found = " | ".join(f"{megabytes(way, shape, chip):,.0f}" for way in WAYS.values())
        print(f"| {name} | {', '.join(map(str, shape[:3]))} | {found} |", flush=True)


if __name__ == "__main__":
    main()
