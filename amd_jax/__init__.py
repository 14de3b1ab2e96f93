"""Masked distillation of small vision transformers: `python -m amd_jax --help`, and `load` for their use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from amd_jax.use.model import Model

__all__ = ["load"]


def load(src: "str | os.PathLike[str]", **options: Any) -> "Model":
    """A trained model that can be shown images or videos: see `amd_jax.use.model.load`."""
    from amd_jax.use import model  # jax, which the command line starts without

    return model.load(src, **options)
