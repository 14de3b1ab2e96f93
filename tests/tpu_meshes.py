"""Prints, as JSON, what is wrong with any mesh over descriptions of real TPUs; needs libtpu and no TPU.

A program of its own: libtpu would stay loaded in the tests' process.
"""

import json
from collections import defaultdict
from typing import Any

import jax
from jax.experimental import topologies

from amd_jax.sharding import batch_sharding, make_mesh

# Four chips a host, as in pods; megacore makes the two cores of a chip one device.
TOPOLOGIES: dict[str, dict[str, Any]] = {
    "v4:2x2x1": {},
    "v4:2x2x4": {"chip_config_name": "megacore"},
    "v4:4x4x4": {"chip_config_name": "megacore"},
    "v5e:2x2": {},
    "v5e:4x4": {},
    "v5e:16x16": {},
    "v5p:2x2x1": {},
    "v5p:2x2x4": {},
    "v5p:4x4x4": {},
    "v6e:2x2": {},
    "v6e:4x8": {},
    "v6e:16x16": {},
    # One host of eight chips.
    "v5e:2x4": {"chips_per_host_bounds": (2, 4, 1)},
    "v6e:2x4": {"chips_per_host_bounds": (2, 4, 1)},
}


def shapes(devices: int) -> list[tuple[int, int, int]]:
    """Every (data, fsdp, tensor) of powers of two."""
    powers = [2**n for n in range(devices.bit_length())]
    return [(devices // (f * t), f, t) for f in powers for t in powers if f * t <= devices]


def problem(devices: list[Any], shape: tuple[int, int, int]) -> str:
    """Why a mesh does not do, read off where its batch lies; empty where it does."""
    try:
        mesh = make_mesh(*shape, devices=devices)
    except ValueError as error:
        return str(error)
    size = 2 * shape[0] * shape[1]
    rows = defaultdict(set)
    for device, (index,) in batch_sharding(mesh).devices_indices_map((size,)).items():
        rows[device.process_index] |= set(range(size)[index])
    part = size // len(rows)
    wanted = {p: set(range(i * part, (i + 1) * part)) for i, p in enumerate(sorted(rows))}
    return "" if rows == wanted else "a process does not hold its part of a batch"


def main() -> None:
    """All topologies with all shapes."""
    found = {}
    for name, options in TOPOLOGIES.items():
        devices = list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
        problems = {shape: problem(devices, shape) for shape in shapes(len(devices))}
        found[name] = {
            "devices": len(devices),
            "processes": len({device.process_index for device in devices}),
            "problems": [[*shape, words] for shape, words in problems.items() if words],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    assert jax.default_backend() == "cpu"
    main()
