"""The device mesh, and path rules that say how each array is shared over it."""

import contextlib
import re
from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
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

    With several processes each holds one part of every batch, whole on its own devices, and the parts follow
    each other as the processes do: the process p reads the p-th part of a batch, whatever the mesh.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or a process cannot hold its part.
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
    return Mesh(_arrange(sizes, devices), AXES, axis_types=auto)


def _arrange(sizes: list[int], devices: Any) -> np.ndarray:
    """The devices as an array of `sizes`; any order computes the same, neighbours are quicker."""
    of_process = Counter(device.process_index for device in devices)
    if len(of_process) == 1:
        # jax.make_mesh lets two mesh axes share an axis of the chips' network on few kinds of TPU only, and
        # refuses most meshes on the others. What is refused even so is no whole grid of chips.
        with contextlib.suppress(AssertionError, NotImplementedError):
            return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    # That order would scatter the devices of one of several processes over the batch, and put one example on
    # several processes. A process's devices are neighbours, and so are most processes that follow each other.
    if min(of_process.values()) < max(of_process.values()):
        raise ValueError(f"processes have unequal numbers of devices, {sorted(of_process.values())}")
    if min(of_process.values()) % sizes[2]:
        raise ValueError(
            f"tensor={sizes[2]} does not divide the {min(of_process.values())} devices of a process, which "
            "reads the examples of its own devices"
        )
    return np.array(sorted(devices, key=lambda device: device.process_index)).reshape(sizes)


def partition_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The rule for `path`, minus the mesh axes that do not divide their dimension of `shape`."""
    path = re.sub("(qkv|kernel)/(values|scale)$", r"\1", path)  # of models/quantized.py
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


def place(tree: Any, where: Any) -> Any:
    """Host arrays on the devices that the shardings `where` name; every process has the same `tree`.

    Each process uploads what its own devices hold. `jax.device_put` would first send every array through all
    of them, to see that they are the same.
    """

    def one(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(one, tree, where)


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's examples as a part of the global batch on the devices."""
    where = batch_sharding(mesh)
    # The one upload of the loop; with several processes jax counts it as implicit.
    with jax.transfer_guard_host_to_device("allow"):
        return {k: jax.make_array_from_process_local_data(where, v) for k, v in batch.items()}
