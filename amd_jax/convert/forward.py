"""From uint8 pixels to what weights make of them: tokens, a feature, logits."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from amd_jax.convert.kinds import Found
from amd_jax.convert.matching import Want, match
from amd_jax.convert.network import Network
from amd_jax.models import patches
from amd_jax.models.blocks import layer_norm
from amd_jax.models.vit import ViT
from amd_jax.trees import nest

Forward = Callable[[Any, jax.Array], jax.Array]

# What each output is computed from, by the beginnings of our names.
PARTS = {
    "logits": ("encoder/", "fc_norm/", "head/"),
    "embedding": ("encoder/", "fc_norm/"),
    "tokens": ("encoder/",),
}


def without_pretraining(network: Network) -> Network:
    """The encoder and the head of a classifier."""
    return dataclasses.replace(network, decoder=None, align=None)


def parameters(found: Found, what: str = "logits") -> dict[str, Any]:
    """What an output is computed from, a nested dict of float32 arrays."""
    arrays = match(found, Want.all_of(found)).arrays
    return nest(
        {name: np.asarray(x, np.float32) for name, x in arrays.items() if name.startswith(PARTS[what])}
    )


def make(
    network: Network, what: str, mean: tuple[float, ...], std: tuple[float, ...], pool: str = ""
) -> Forward:
    """From parameters and uint8 pixels [batch, T, H, W, C] to an output, float32.

    Args:
      network: of the parameters, without a decoder.
      what: "logits" [batch, classes]; "tokens" after the final norm [batch, (1 +) tokens, width];
        "embedding" [batch, width].
      mean: subtracted from pixels in [0, 1], by channel.
      std: divided by, likewise.
      pool: of the embedding: the "mean" of the patch tokens after the final norm, or the "cls" token; empty:
        what the head reads, and the mean where there is no head.
    """
    encoder = network.encoder

    def inputs(pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = patches.normalize(patches.patchify(pixels, network.patch), mean, std)
        return x, jnp.broadcast_to(jnp.arange(encoder.tokens), x.shape[:2])

    def tokens(params: Any, pixels: jax.Array) -> jax.Array:
        out: Any = ViT(encoder, network.norm).apply({"params": params["encoder"]}, *inputs(pixels))
        return out[0].astype(jnp.float32)

    def embedding(params: Any, pixels: jax.Array) -> jax.Array:
        x = tokens(params, pixels)
        if pool == "cls" or (not pool and network.classes and not network.fc_norm):
            return x[:, 0]
        x = x[:, encoder.prefix :].mean(axis=1)
        if network.fc_norm and not pool:
            norm = layer_norm("fc_norm", network.fc_norm_eps or encoder.block.norm_eps)
            x = norm.apply({"params": params["fc_norm"]}, x)  # type: ignore[assignment]
        return x

    def logits(params: Any, pixels: jax.Array) -> jax.Array:
        out: Any = network.classifier().apply({"params": params}, *inputs(pixels))
        return out

    return {"tokens": tokens, "embedding": embedding, "logits": logits}[what]
