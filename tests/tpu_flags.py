"""Prints, as JSON, how the TPU compiler sums gradients over chips in a loop; needs libtpu and no TPU.

A program of its own: libtpu would stay loaded in the tests' process, and reads its flags once.
"""

import json

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from amd_jax.sharding import make_mesh


def main() -> None:
    """The gradients of two layers on eight chips that share a batch."""
    options = {"chips_per_host_bounds": (2, 4, 1)}
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4", **options).devices
    mesh = make_mesh(8, 1, 1, devices=list(devices))

    def loss(layers: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
        return (jax.nn.gelu(x @ layers[0]) @ layers[1]).var()

    layer = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=NamedSharding(mesh, P()))
    rows = jax.ShapeDtypeStruct((1024, 256), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    text = jax.jit(jax.grad(loss)).lower((layer, layer), rows).compile().as_text()
    print(json.dumps({"sums": text.count(" all-reduce"), "started": text.count(" all-reduce-start(")}))


if __name__ == "__main__":
    main()
