"""Transformer blocks, stacked along a leading layer axis and run with `lax.scan`."""

import dataclasses
import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from amd_jax.models import quantized
from amd_jax.models.attention import Implementation, attend

xavier = nn.initializers.xavier_uniform()

Rotation = tuple[jax.Array, jax.Array]  # cosines and sines `[batch, tokens, 1, half a head's width]`

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),  # exact (erf)
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What all blocks of a stack have in common."""

    width: int
    heads: int
    mlp_width: int
    qkv_bias: str = "qkv"  # which of q, k, v have a bias: "qkv", "qv" (VideoMAE) or "none"
    norm_eps: float = 1e-6
    mlp: str = "gelu"  # a name of `ACTIVATIONS`, or "swiglu": SiLU of a third linear layer gates the first
    layer_scale: bool = False  # each branch is multiplied by a trained scale, feature by feature (DINOv2)
    dtype: Any = jnp.float32  # compute type; parameters, norms and softmax are float32
    residual: Any = jnp.float32  # type of what goes from block to block, to which each branch is added
    attention: Implementation = "xla"
    remat: bool = False
    unroll: bool = False  # the loop over layers is written out
    frozen: bool = False  # nobody asks for gradients of the parameters
    kept_as: str = ""  # how frozen kernels are kept and multiplied: "int8", "fp8" or "", as they are computed

    def __post_init__(self) -> None:
        if self.kept_as and not self.frozen:
            raise ValueError(f"kept_as={self.kept_as!r}: only frozen blocks have kernels in eight bits")


def layer_norm(name: str, eps: float) -> nn.LayerNorm:
    """LayerNorm in float32; the two-pass variance, because E[x²] − E[x]² loses digits."""
    return nn.LayerNorm(epsilon=eps, dtype=jnp.float32, use_fast_variance=False, name=name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
    """`[rows, inputs]` times `[inputs, *outputs]`, computed in `dtype`.

    The gradient of the kernel is float32 before devices add theirs up: a cast would be differentiated after
    the sum, and bfloat16 would travel, whose sums over many devices lose what the optimiser needs.
    """
    return jnp.tensordot(x.astype(dtype), kernel.astype(dtype), 1)


def _product_forward(x: jax.Array, kernel: jax.Array, dtype: Any) -> tuple[jax.Array, Any]:
    return product(x, kernel, dtype), (x, kernel)


def _product_backward(dtype: Any, saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    given = (x.astype(dtype), kernel.astype(dtype), g)
    of_x, of_kernel = jax.lax.platform_dependent(*given, cpu=_flat_gradients, default=_gradients)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


_ROWS = (((0,), (0,)), ((), ()))


def _gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of x and of the kernel; a mesh may share any of the kernel's axes."""
    outputs = tuple(range(1, g.ndim))
    of_x = jax.lax.dot_general(g, kernel, ((outputs, outputs), ((), ())))
    of_kernel = jax.lax.dot_general(g, x, _ROWS, preferred_element_type=jnp.float32)
    return of_x, jnp.moveaxis(of_kernel, -1, 0)


def _flat_gradients(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same as products of matrices: with more axes a CPU's program turns kernel and gradient around."""
    flat = g.reshape(len(g), -1)
    of_x = flat @ kernel.reshape(len(kernel), -1).T
    of_kernel = jax.lax.dot_general(x, flat, _ROWS, preferred_element_type=jnp.float32)
    return of_x, of_kernel.reshape(kernel.shape)


product.defvjp(_product_forward, _product_backward)


def times(x: jax.Array, kernel: jax.Array | quantized.Kernel, dtype: Any) -> jax.Array:
    """`product`, or that in eight bits where the kernel is kept so."""
    return quantized.product(x, kernel, dtype) if isinstance(kernel, dict) else product(x, kernel, dtype)


def add(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """`x + parameter` in the type of `x`; the parameter's gradient is summed in float32, see `product`."""
    return (x.astype(jnp.float32) + parameter.astype(jnp.float32)).astype(x.dtype)


class Linear(nn.Module):
    """`x @ kernel + bias` over the last axis.

    Leading axes are flattened first: on the CPU the weight gradient of a 2-D product is about twice as fast.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Any = xavier
    bias_init: Any = nn.initializers.zeros
    kept_as: str = ""  # see `BlockConfig`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = quantized.drawn(self.kernel_init, self.kept_as)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        flat = times(x.reshape(-1, x.shape[-1]), kernel, self.dtype)
        if self.use_bias:
            flat = add(flat, self.param("bias", self.bias_init, (self.features,)))
        return flat.reshape(*x.shape[:-1], self.features)


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v in one kernel `[width, 3, heads, head width]`.

    Heads have an axis of their own so that a mesh can share them without cutting through one.
    """

    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        """`rotation` turns queries and keys by their place in the image; see `rotated`."""
        c = self.config
        batch, tokens, width = x.shape
        shape = (c.heads, width // c.heads)
        init = nn.initializers.xavier_uniform(in_axis=0, out_axis=(1, 2, 3))
        kernel = self.param("qkv", quantized.drawn(init, c.kept_as), (width, 3, *shape))
        qkv = times(x.reshape(-1, width), kernel, c.dtype).reshape(batch, tokens, 3, *shape)
        # Not by index: the gradient of a split is one concatenation, that of indexing a sum of padded arrays.
        q, k, v = (part[:, :, 0] for part in jax.lax.split(qkv, (1, 1, 1), axis=2))
        zeros = nn.initializers.zeros
        if "q" in c.qkv_bias:
            q = add(q, self.param("q_bias", zeros, shape))
        if "k" in c.qkv_bias:
            k = add(k, self.param("k_bias", zeros, shape))
        if "v" in c.qkv_bias:
            v = add(v, self.param("v_bias", zeros, shape))
        if rotation is not None:
            q, k = rotated(q, rotation), rotated(k, rotation)
        x = attend(q, k, v, c.attention)
        return Linear(width, dtype=c.dtype, kept_as=c.kept_as, name="proj")(x.reshape(batch, tokens, width))


def rotated(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Rotary positions: the n-th feature of the first half of a head and that of the second turn together.

    Args:
      x: `[batch, tokens, heads, head width]`.
      rotation: cosines and sines of each token's angles.
    """
    cos, sin = rotation
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Mlp(nn.Module):
    """Linear, activation (or the gate of a SwiGLU), linear."""

    config: BlockConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        linear = functools.partial(Linear, dtype=c.dtype, kept_as=c.kept_as)
        y = linear(c.mlp_width, name="fc1")(x)
        gated = c.mlp == "swiglu"
        y = nn.silu(linear(c.mlp_width, name="gate")(x)) * y if gated else ACTIVATIONS[c.mlp](y)
        return linear(c.width, name="fc2")(y)


class Block(nn.Module):
    """Pre-norm transformer block over `[batch, tokens, width]`."""

    config: BlockConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, keep: jax.Array | None = None, rotation: Rotation | None = None
    ) -> jax.Array:
        """`keep` `[batch, 2]` scales the two branches of each example (drop path)."""
        c = self.config
        y = layer_norm("norm1", c.norm_eps)(x).astype(c.dtype)
        y = self._layer_scaled(Attention(c, name="attn")(y, rotation), "scale1")
        x = (x + _scaled(y, keep, 0)).astype(c.residual)
        y = layer_norm("norm2", c.norm_eps)(x).astype(c.dtype)
        y = self._layer_scaled(Mlp(c, name="mlp")(y), "scale2")
        return (x + _scaled(y, keep, 1)).astype(c.residual)

    def _layer_scaled(self, branch: jax.Array, name: str) -> jax.Array:
        """LayerScale, which starts at one here: those that are read have been trained."""
        if not self.config.layer_scale:
            return branch
        scale = self.param(name, nn.initializers.ones, (self.config.width,))
        return (branch * scale).astype(branch.dtype)


def _scaled(branch: jax.Array, keep: jax.Array | None, which: int) -> jax.Array:
    return branch if keep is None else branch * keep[:, which, None, None]  # float32, as is the sum then


class Blocks(nn.Module):
    """`depth` blocks whose parameters are stacked along a leading layer axis."""

    config: BlockConfig
    depth: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        taps: tuple[int, ...] = (),
        keep: jax.Array | None = None,
        rotation: Rotation | None = None,
    ) -> tuple[jax.Array, dict[int, jax.Array]]:
        """Run all blocks.

        Args:
          x: `[batch, tokens, width]`.
          taps: layers, counted from 1, whose outputs are wanted.
          keep: `[batch, depth, 2]`, factors of the two branches of each block (drop path).
          rotation: of each token, the same in every block; see `rotated`.

        Returns:
          The output of the last block, and the output of each tapped one.
        """
        block = Block(self.config, parent=None)

        def init(key: jax.Array) -> Any:
            keys = jax.random.split(key, self.depth)
            return jax.vmap(lambda k: block.init(k, x[:1])["params"])(keys)

        # A param that is a whole subtree: the block's own names and shapes with a layer axis in front.
        stacked: Any = self.param("layers", init)

        def layer(x: jax.Array, inputs: Any) -> jax.Array:
            params, kept = inputs
            return block.apply({"params": params}, x, kept, rotation)  # type: ignore[return-value]

        if self.config.remat:
            layer = jax.checkpoint(layer, prevent_cse=False)
        per_layer = (stacked, None if keep is None else keep.swapaxes(0, 1))
        if self.config.frozen:
            return _tap_by_tap(layer, x, per_layer, self.depth, taps, self.config.unroll)
        inner = any(tap < self.depth for tap in taps)

        def step(x: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array | None]:
            x = layer(x, inputs)
            return x, x if inner else None

        # One scan, which gives every layer's output where one is wanted: cut at the taps, the parameters
        # would be copied on the way in and their gradients on the way out. A backward pass keeps far more.
        x, outputs = jax.lax.scan(step, x, per_layer, unroll=self.config.unroll)
        return x, {tap: x if outputs is None or tap == self.depth else outputs[tap - 1] for tap in taps}


def _tap_by_tap(
    layer: Callable[[jax.Array, Any], jax.Array],
    x: jax.Array,
    per_layer: Any,
    depth: int,
    taps: tuple[int, ...],
    unroll: bool,
) -> tuple[jax.Array, dict[int, jax.Array]]:
    """One scan from tap to tap: nothing but the wanted outputs is kept, and each layer is read where it lies.

    Not for what is trained: each layer's gradient would be as large as all parameters.
    """
    tapped = {}
    for start, stop in pairwise(sorted({0, depth, *taps})):
        x, _ = jax.lax.scan(
            lambda x, i: (
                layer(
                    x, jax.tree.map(lambda p: jax.lax.dynamic_index_in_dim(p, i, keepdims=False), per_layer)
                ),
                None,
            ),
            x,
            jnp.arange(start, stop),
            unroll=unroll,
        )
        if stop in taps:
            tapped[stop] = x
    return x, tapped
