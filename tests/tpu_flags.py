"""Prints, as JSON, how the TPU compiler sums gradients over chips in a loop; needs libtpu and no TPU.

A program of its own: libtpu would stay loaded in the tests' process, and it reads its flags once.
"""

import json

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amd_jax.planning.counting import count
from amd_jax.sharding import make_mesh

WIDTH, LAYERS, ROWS = 512, 2, 8192


def loss(layers: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    """Of MLPs with residual connections, in a loop."""

    def layer(x: jax.Array, weights: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return x + jax.nn.gelu(x @ weights[0]) @ weights[1], None

    return jnp.square(jax.lax.scan(layer, x, layers)[0].astype(jnp.float32)).mean()


def main() -> None:
    """The gradient on 16 chips that share a batch: bytes and whether computation goes on, for each sum."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices
    mesh = make_mesh(16, 1, 1, devices=list(devices))

    def array(shared: str | None, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, P(shared)))

    layers = array(None, LAYERS, WIDTH, 4 * WIDTH), array(None, LAYERS, 4 * WIDTH, WIDTH)
    replicated = jax.tree.map(lambda x: x.sharding, layers)
    gradient = jax.jit(jax.grad(loss), out_shardings=replicated)
    text = gradient.lower(layers, array("data", ROWS, WIDTH)).compile().as_text()
    print(json.dumps([(c.bytes, c.overlapped) for c in count(text).collectives]))


if __name__ == "__main__":
    main()
