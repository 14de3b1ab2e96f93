"""Prints, as JSON, what the TPU compiler makes of a step for a description of a TPU; needs libtpu and no TPU.

A program of its own: libtpu would stay loaded in the tests' process.
"""

import json

from jax.experimental import topologies

from amd_jax.sharding import make_mesh
from amd_jax.train import program
from configs import vitb_in1k

TOPOLOGY = "v5e:2x4"


def main() -> None:
    """A small step of AMD, its rows shared by all chips and its parameters by two."""
    config = vitb_in1k.get_config("smoke")
    options = {"chips_per_host_bounds": (2, 4, 1)}  # one host
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY, **options).devices
    run = program.build(config, make_mesh(4, 2, 1, devices=list(devices)), examples=1000, classes=10)
    lowered = run.lower()
    compiled = lowered.compile()
    teacher = {str(x.dtype) for x in run.teacher["blocks"]["layers"]["mlp"]["fc1"].values()}
    found = {
        "dtype": run.config.model.dtype,
        "teacher": sorted(teacher),
        "bfloat16": "bf16" in lowered.as_text(),
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "all-reduce": "all-reduce" in compiled.as_text(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
