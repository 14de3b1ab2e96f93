"""Parameters are plain nested dicts: their names, and putting one over another."""

from typing import Any


def path_name(path: tuple[Any, ...]) -> str:
    """A parameter's name, as `encoder/blocks/layers/attn/qkv`, from a `jax.tree_util` path."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def overlay(drawn: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The parameters `drawn`, with those that are `given` in their place."""
    return {
        name: overlay(value, given.get(name, {})) if isinstance(value, dict) else given.get(name, value)
        for name, value in drawn.items()
    }
