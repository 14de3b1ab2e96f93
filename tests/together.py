"""One of several processes that train small runs together: `OUT INDEX COORDINATOR PROCESSES DEVICES`.

Runs share the processes because starting those takes longer.
"""

import itertools
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax.data import pipeline
from amd_jax.data.sources import make_source
from amd_jax.errors import UserError
from amd_jax.hosts import alike, ending, join
from amd_jax.sharding import global_batch, make_mesh, replicated
from amd_jax.train import setup
from amd_jax.trees import flatten
from configs import finetune_vitb_in1k, kd_vitb_in1k, vitb_in1k
from tests.runs import untrained

STEPS = 2
MESHES = {"finetune": (1, 4, 1), "kd": (2, 1, 2), "amd": (1, 2, 2)}


def pretraining() -> ConfigDict:
    """AMD's smoke run, short."""
    return _short(vitb_in1k)


def _short(module: Any) -> ConfigDict:
    config = module.get_config("smoke")
    config.batch_size, config.steps = 8, STEPS
    # Adam turns the rounding errors of vanishing gradients into whole steps; a large epsilon does not.
    config.optim.eps, config.optim.warmup_steps = 1e-3, 1
    config.optim.warmup_lr = config.optim.base_lr
    config.finetune.mixup = config.finetune.cutmix = 0.0  # the draw of their shares takes long to compile
    return config


def write_weights(out: Path) -> None:
    """What `runs` start from: MAE's and a fine-tuned run, which were never trained."""
    mae = pretraining()
    mae.method = "mae"
    for seed, (name, config) in enumerate(
        [("mae", mae), ("other", mae), ("finetuned", _short(finetune_vitb_in1k))]
    ):
        untrained(config, out / name, seed)


def runs(out: Path) -> dict[str, ConfigDict]:
    """Runs that start from `write_weights`, and whose other parameters are new."""
    finetune, kd = _short(finetune_vitb_in1k), _short(kd_vitb_in1k)
    finetune.finetune.ema = 0.5
    kd.teacher.random, kd.teacher.weights = False, str(out / "finetuned")
    configs = {"finetune": finetune, "kd": kd, "amd": pretraining()}
    for config in configs.values():
        config.student.weights = str(out / "mae")
    return configs


def read(config: ConfigDict, process: int, processes: int) -> list[pipeline.Batch]:
    """The batches of a process."""
    source = make_source(config.data, "train")
    with pipeline.train_stream(
        config, source, start_step=0, process_index=process, process_count=processes
    ) as stream:
        return list(itertools.islice(stream, STEPS))


def train(config: ConfigDict, workdir: Path) -> dict[str, np.ndarray]:
    """What the steps of a run report, and its last parameters and their mean, by name."""
    run = setup.prepare(config, str(workdir))
    assert run.step is not None
    state, reported = run.state, {}
    for step, batch in enumerate(read(config, jax.process_index(), jax.process_count())):
        on_device = global_batch({name: batch[name] for name in run.program.task.inputs}, run.program.mesh)
        state, reported[str(step)] = jax.block_until_ready(run.step(state, run.teacher, on_device))
    run.checkpoints.close()
    end = {"params": state.params, "ema": state.ema, "reported": reported}
    return flatten(jax.jit(lambda x: x, out_shardings=replicated(run.program.mesh))(end))


def check_batches(config: ConfigDict) -> None:
    """On any mesh the processes' parts make the batch that one process reads."""
    whole, part = read(config, 0, 1)[1], read(config, jax.process_index(), jax.process_count())[1]
    for shape in [(-1, 1, 1), (1, -1, 1), (-1, 2, 1), (-1, 1, 2), (1, -1, 2)]:
        mesh = make_mesh(*shape)
        together = jax.jit(lambda x: x, out_shardings=replicated(mesh))(global_batch(part, mesh))
        for name in ("pixels", "label"):
            np.testing.assert_array_equal(jax.device_get(together[name]), whole[name])


def check_that_unlike_weights_are_refused(config: ConfigDict, out: Path) -> None:
    """Each process is told to start from another run."""
    for who in ("student", "teacher"):
        changed = ConfigDict(config)
        changed[who].weights = str(out / ("mae", "other")[jax.process_index() % 2])
        changed.teacher.random = who != "teacher"
        try:
            with mock.patch.object(alike, "check"):  # which would notice that they were told so
                setup.prepare(changed, str(out / "refused"))
        except UserError as error:
            assert f"{who}.weights: the processes read different weights" in str(error)  # noqa: PT017
        else:
            raise AssertionError(f"{who}: was not refused")
    assert not (out / "refused").exists()


def main(out: Path, index: int, coordinator: str, processes: int, devices: int) -> None:
    """Joins the others and does everything."""
    jax.config.update("jax_num_cpu_devices", devices)
    join.join(coordinator, processes, index, {})
    check_batches(pretraining())
    check_that_unlike_weights_are_refused(pretraining(), out)
    for name, config in runs(out).items():
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor = MESHES[name]
        ends = train(config, out / "together" / name)
        if index == 0:
            np.savez(out / f"{name}.npz", **ends)
    ending.ended(None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
