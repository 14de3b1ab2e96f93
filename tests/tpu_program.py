"""Prints, as JSON, what the TPU compiler makes of a step for a description of a TPU; needs libtpu and no TPU.

A program of its own: libtpu would stay loaded in the tests' process.
"""

import json
from typing import Any

import jax

from amd_jax.planning import target
from amd_jax.planning.counting import count
from amd_jax.sharding import make_mesh
from amd_jax.train import program
from configs import vitb_in1k

TOPOLOGY = "v5e:2x4"


def built(mesh: tuple[int, int, int], student: str = "debug", accum_steps: int = 1) -> program.Program:
    """A small step of AMD on one host of eight chips."""
    config = vitb_in1k.get_config("smoke")
    config.student.size, config.accum_steps = student, accum_steps
    devices = target.devices(target.target(TOPOLOGY))
    return program.build(config, make_mesh(*mesh, devices=devices), examples=1000, classes=10)


def sums(run: program.Program) -> dict[str, Any]:
    """What chips add up: type, bytes a step, whether in a loop and overlapped; and the parameters' bytes."""
    found = count(run.lower().compile().as_text()).collectives
    return {
        "sums": [(c.dtype, c.bytes * c.times, c.loop, c.overlapped) for c in found if c.kind == "all-reduce"],
        "parameters": 4 * sum(x.size for x in jax.tree.leaves(run.state.params)),
    }


def main() -> None:
    """One program whose rows are shared by all chips and whose parameters by two, and two with rows alone."""
    run = built((4, 2, 1))
    lowered = run.lower()
    compiled = lowered.compile()
    teacher = {str(x.dtype) for x in run.teacher["blocks"]["layers"]["mlp"]["fc1"].values()}
    found = {
        "dtype": run.config.model.dtype,
        "teacher": sorted(teacher),
        "bfloat16": "bf16" in lowered.as_text(),
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "all-reduce": "all-reduce" in compiled.as_text(),
        "layer by layer": sums(built((8, 1, 1), student="small")),  # a layer of it has 7 MB
        "accumulated": sums(built((8, 1, 1), accum_steps=4)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
