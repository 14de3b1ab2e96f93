"""AdamW with decay by parameter path, and the learning rate as a function of the step."""

import re
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from amd_jax.train_state import path_name

# No decay on biases, norms, tokens and positions, as in all the released recipes.
NO_DECAY = re.compile(r"(bias|scale|cls_token|mask_token|positions)$")
GENERATOR_TOKENS = re.compile(r"generator_\d+/mask_token$")


def decay_mask(params: Any) -> Any:
    """True for every parameter that weight decay shrinks."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not NO_DECAY.search(path_name(path)), params)


def schedule(config: ConfigDict, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Linear warm-up and cosine decay, per step; every rate of the config is per 256 examples.

    Repeated samples of one example do not count (AMD's and VideoMAE's released scripts).
    """
    o = config.optim
    scale = config.batch_size / 256
    warmup = min(o.warmup_steps or round(o.warmup_epochs * steps_per_epoch), total_steps)
    return optax.warmup_cosine_decay_schedule(
        o.warmup_lr * scale,
        o.base_lr * scale,
        warmup,
        max(total_steps, warmup + 1),
        o.min_lr * scale,
    )


def optimizer(config: ConfigDict, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW; see the `optim` keys of the config."""
    o = config.optim
    adamw = optax.adamw(
        learning_rate, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay, mask=decay_mask
    )
    clip = [optax.clip_by_global_norm(o.clip)] if o.clip else []
    chain = optax.chain(*clip, adamw)
    if config.align.train_mask_tokens:
        return chain

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if GENERATOR_TOKENS.search(path_name(path)) else "trained",
            params,
        )

    return optax.multi_transform({"trained": chain, "frozen": optax.set_to_zero()}, label)
