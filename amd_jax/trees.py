"""Parameters are plain nested dicts: their names, flat and nested, and putting one over another."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def path_name(path: tuple[Any, ...]) -> str:
    """A parameter's name, as `encoder/blocks/layers/attn/qkv`, from a `jax.tree_util` path."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def overlay(drawn: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The parameters `drawn`, with those that are `given` in their place."""
    return {
        name: overlay(value, given.get(name, {})) if isinstance(value, dict) else given.get(name, value)
        for name, value in drawn.items()
    }


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """`{"a": {"b": x}}` to `{"a/b": x}`, as host arrays."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
