"""AdamW with decay by parameter path, and the learning rate as a function of the step."""

import re
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from amd_jax.errors import ConfigError
from amd_jax.trees import path_name

# No decay on biases, norms, tokens and positions: AMD's and VideoMAE's rule, kept for all methods here.
NO_DECAY = re.compile(r"(bias|scale|cls_token|mask_token|positions)$")
GENERATOR_TOKENS = re.compile(r"generator_\d+/mask_token$")


def decay_mask(params: Any) -> Any:
    """True for every parameter that weight decay shrinks."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not NO_DECAY.search(path_name(path)), params)


def schedule(config: ConfigDict, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Linear warm-up and cosine decay, per step; every rate of the config is per 256 examples.

    Repeated samples of one example do not count (AMD's and VideoMAE's released scripts).

    Raises:
      ConfigError: the warm-up is longer than the run, which would end before its peak.
    """
    o = config.optim
    scale = config.batch_size / 256
    warmup = o.warmup_steps or round(o.warmup_epochs * steps_per_epoch)
    if warmup > total_steps:
        key = "optim.warmup_steps" if o.warmup_steps else "optim.warmup_epochs"
        raise ConfigError(
            f"{key}={o[key.removeprefix('optim.')]}: {warmup} steps of warm-up are longer than the run of "
            f"{total_steps}; shorten it, or set it to 0"
        )
    return optax.warmup_cosine_decay_schedule(
        o.warmup_lr * scale,
        o.base_lr * scale,
        warmup,
        max(total_steps, warmup + 1),  # a run that is all warm-up has no decay, of which optax wants a step
        o.min_lr * scale,
    )


def optimizer(config: ConfigDict, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW; see the `optim` keys of the config."""
    o = config.optim
    adamw = optax.adamw(
        learning_rate,
        b1=o.b1,
        b2=o.b2,
        eps=o.eps,
        mu_dtype=o.moments,
        weight_decay=o.weight_decay,
        mask=decay_mask,
    )
    clip = [optax.clip_by_global_norm(o.clip)] if o.clip else []
    layered = [_scale_layers(o.layer_decay)] if o.layer_decay != 1 else []
    chain = optax.chain(*clip, adamw, *layered)
    if config.align.train_mask_tokens:
        return chain

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if GENERATOR_TOKENS.search(path_name(path)) else "trained",
            params,
        )

    return optax.multi_transform({"trained": chain, "frozen": optax.set_to_zero()}, label)


def layer_scales(params: Any, decay: float) -> Any:
    """Each parameter's factor on the learning rate, decay ** (layers above it).

    Patch embedding, CLS token and positions are layer 0, block n (from 1) is layer n, everything after the
    blocks is the layer above the last. Source: MAE `util/lr_decay.py`. Stacked blocks get `[depth, 1, …]`.
    """
    stacked = params["encoder"]["blocks"]["layers"]
    depth = jax.tree.leaves(stacked)[0].shape[0]

    def scale(path: tuple[Any, ...], x: Any) -> Any:
        name = path_name(path)
        if "blocks/layers/" in name:
            factors = decay ** np.arange(depth, 0, -1, dtype=np.float64)
            return factors.astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
        first = name.startswith("encoder/") and not name.startswith("encoder/norm")
        return np.float32(decay ** (depth + 1) if first else 1.0)

    return jax.tree_util.tree_map_with_path(scale, params)


def _scale_layers(decay: float) -> optax.GradientTransformation:
    """Multiplies the whole update, weight decay included, as parameter groups with their own rate do."""

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, s: u * s, updates, layer_scales(params, decay))

    return optax.stateless(update)
