"""The device mesh, and path rules that say how each array is shared over it."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# The first pattern that matches the end of a parameter's path decides. Stacked layers have a leading layer
# axis that is never shared. The optimiser's moments end in the same paths as the parameters.
RULES: tuple[tuple[str, P], ...] = (
    (r"attn/qkv", P(None, "fsdp", None, "tensor", None)),
    (r"attn/[qkv]_bias", P(None, "tensor", None)),
    (r"attn/proj/kernel", P(None, "tensor", "fsdp")),
    (r"mlp/fc1/kernel", P(None, "fsdp", "tensor")),
    (r"mlp/fc1/bias", P(None, "tensor")),
    (r"mlp/fc2/kernel", P(None, "tensor", "fsdp")),
    (r"kernel", P(None, "fsdp")),  # patch embedding, projections, decoder's ends, head
    (r"", P()),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """A mesh over all devices; one axis may be -1 and takes what is left.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor]
    known = int(np.prod([size for size in sizes if size > 0]))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = len(devices) // known
    if min(sizes) < 1 or int(np.prod(sizes)) != len(devices):
        raise ValueError(
            f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not fit {len(devices)} devices"
        )
    auto = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes), AXES, axis_types=auto, devices=devices)


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The rule for `path`, minus the mesh axes that do not divide their dimension of `shape`."""
    rule = next(spec for pattern, spec in RULES if re.search(f"{pattern}$", path))
    if len(rule) != len(shape):
        return P()  # an optimiser scalar, or an array that only shares its name with a parameter
    names = (
        n if n is not None and d % mesh.shape[n] == 0 else None for n, d in zip(rule, shape, strict=True)
    )
    return P(*names)


def shardings(tree: Any, mesh: Mesh, path_name: Any) -> Any:
    """A `NamedSharding` for every array (or abstract array) of `tree`, by the name of its path."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(path_name(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are shared over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, P())


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's examples as a part of the global batch on the devices."""
    where = batch_sharding(mesh)
    # The one upload of the loop; with several processes jax counts it as implicit.
    with jax.transfer_guard_host_to_device("allow"):
        return {k: jax.make_array_from_process_local_data(where, v) for k, v in batch.items()}
