"""Many views of an example: rows that lie side by side in a batch and become one."""

from collections.abc import Callable

import jax


def by_example(x: jax.Array, views: int) -> jax.Array:
    """`[examples]` of `[examples * views]`, which is the same for all views of an example."""
    return x.reshape(-1, views)[:, 0]


def over_views(function: Callable[[jax.Array], jax.Array], pixels: jax.Array, views: int) -> jax.Array:
    """The mean of `function` over the views of each example, `[examples, ...]`.

    One view of all examples at a time: no device needs room for more.

    Args:
      function: from pixels of a batch to `[batch, ...]`.
      pixels: `[examples * views, ...]`, the views of an example side by side.
      views: of an example.
    """
    if views == 1:
        return function(pixels)
    by_view = pixels.reshape(-1, views, *pixels.shape[1:]).swapaxes(0, 1)
    return jax.lax.map(function, by_view).mean(axis=0)
