"""What normalising a teacher's features is worth where a few of their channels are far larger than others.

    python benchmarks/outlier_channels.py --workdir=DIR

CLIP, SigLIP and DINOv2 are reported to have such channels. Here the MAE teacher of the demo is trained, and
what it shows of each taught layer is multiplied: every channel by 1, two of 96 by --factor. The features know
the same as before. Students learn by AMD from either, with each `loss.feature_norm`; printed is the linear
probe of their encoders. Finished runs in DIR are kept.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).parents[1]))

from amd_jax.models.masking import Masks
from amd_jax.probe import probe_run
from amd_jax.steps import tasks
from amd_jax.steps.pretrain import Pretraining
from amd_jax.train import loop, setup
from configs import demo

CHANNELS = (17, 58)  # any two
NORMS = ("none", "layernorm", "l2")


@dataclasses.dataclass(frozen=True)
class Scaled(Pretraining):
    """Pre-training from a teacher two of whose channels are larger."""

    factor: float = 1.0

    def teacher_features(self, params: Any, pixels: jax.Array, masks: Masks) -> dict[int, jax.Array]:
        """The teacher's layers, channel by channel times 1 or `factor`."""
        features = super().teacher_features(params, pixels, masks)
        scale = np.ones(next(iter(features.values())).shape[-1], np.float32)
        scale[list(CHANNELS)] = self.factor
        return {layer: y * scale for layer, y in features.items()}


def finished(folder: Path, config: ConfigDict) -> str:
    """Trains the run unless it is there already; returns its workdir."""
    if not (folder / "checkpoints" / str(config.steps)).is_dir():
        loop.train(setup.prepare(config, str(folder)))
    return str(folder)


def student(folder: Path, teacher: str, steps: int, seed: int, norm: str, factor: float) -> str:
    """The workdir of a student."""

    def scaled(config: ConfigDict, classes: int) -> Scaled:
        plain = Pretraining.from_config(config, classes)
        values = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
        return Scaled(**values, factor=factor)

    tasks.TASKS["pretrain"] = scaled
    config = demo.get_config("amd")
    config.teacher.weights, config.loss.feature_norm, config.seed = teacher, norm, seed
    config.steps, config.optim.warmup_steps = steps, steps // 10
    config.log.pictures_every, config.checkpoint.every = 0, steps
    return finished(folder, config)


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--teacher_steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--factor", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    config = demo.get_config("teacher")
    config.steps, config.optim.warmup_steps = args.teacher_steps, args.teacher_steps // 10
    config.log.pictures_every = 0
    teacher = finished(args.workdir / "teacher", config)
    rows = [f"teacher after {args.teacher_steps} steps: {probe_run(teacher, {})['probe_top1']:.1f} %"]
    for factor in (1.0, args.factor):
        for norm in NORMS:
            scores = []
            for seed in range(args.seeds):
                folder = args.workdir / f"{norm}-{factor:g}-{seed}"
                run = student(folder, teacher, args.steps, seed, norm, factor)
                scores.append(f"{probe_run(run, {})['probe_top1']:.1f}")
            rows.append(f"two channels x {factor:<4g} feature_norm {norm:<10} {'  '.join(scores)} %")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
