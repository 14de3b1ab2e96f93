"""What a run of this package trained, from its config and its parameters."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from amd_jax.convert.arch import Arch
from amd_jax.models import build


def arch_of_run(config: ConfigDict, arrays: Mapping[str, np.ndarray]) -> Arch:
    """The sizes of a run's parameters; its config says what their shapes do not."""
    patch, channels = build.patch(config), len(config.data.mean)
    if "head/kernel" not in arrays:
        return Arch.of_student(build.student(config), patch, channels)
    pooled = "fc_norm/scale" in arrays
    arch = Arch.of_encoder(build.encoder(config, "student"), patch, channels, final_norm=not pooled)
    return dataclasses.replace(arch, classes=arrays["head/kernel"].shape[-1], fc_norm=pooled)
