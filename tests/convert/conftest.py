"""Small random weights under the published names."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from amd_jax.convert import official, tables
from amd_jax.convert.arch import Align, Arch, Decoder, Stack
from amd_jax.convert.cli import main
from amd_jax.convert.probe import fixed_table
from amd_jax.convert.readers import METADATA_KEY
from amd_jax.convert.stated import Stated

Weights = dict[str, np.ndarray]


def image_arch(**changes: object) -> Arch:
    """A small MAE encoder."""
    arch = Arch(
        encoder=Stack(width=32, depth=3, heads=4, mlp_width=64),
        patch=(1, 8, 8),
        channels=3,
        grid=(1, 4, 4),
        cls_token=True,
        positions="sincos_2d",
        norm=True,
        video=False,
    )
    return dataclasses.replace(arch, **changes)  # type: ignore[arg-type]


def mae_arch(**changes: object) -> Arch:
    """A small MAE."""
    decoder = Decoder(Stack(16, 2, 2, 64), embed_bias=True, positions="sincos_2d")
    return image_arch(**{"decoder": decoder, **changes})


def video_arch(**changes: object) -> Arch:
    """A small fine-tuned VideoMAE."""
    arch = Arch(
        encoder=Stack(32, 3, 4, 64, "qv"),
        patch=(2, 8, 8),
        channels=3,
        grid=(2, 4, 4),
        cls_token=False,
        positions="sincos_1d",
        norm=False,
        video=True,
        classes=5,
        fc_norm=True,
    )
    return dataclasses.replace(arch, **changes)  # type: ignore[arg-type]


def amd_arch() -> Arch:
    """A small AMD student in pre-training."""
    decoder = Decoder(Stack(16, 2, 2, 64, "qv"), embed_bias=False, positions="sincos_1d")
    align = Align(48, 2, False, 2, Stack(48, 2, 3, 192, "qv"))
    return video_arch(decoder=decoder, align=align, classes=0, fc_norm=False, norm=True)


def random_params(arch: Arch, seed: int = 0, dtype: type = np.float32) -> Weights:
    """Random parameters of ours, flat."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, shape).astype(dtype) for name, shape in arch.shapes().items()}


def published(arch: Arch, seed: int = 0, dtype: type = np.float32) -> Weights:
    """Random weights under the official names, position tables included."""
    ours = random_params(arch, seed, dtype)
    out = tables.write(official.table(arch), ours)
    for name, theirs in official.positions(arch).items():
        width = arch.encoder.width
        if name in ours:
            out[theirs] = ours[name][None]
        elif name == official.DECODER_POSITIONS and arch.decoder:
            out[theirs] = fixed_table("sincos_2d", arch.grid, arch.decoder.stack.width, arch.cls_token)[None]
        elif not arch.video:
            out[theirs] = fixed_table(arch.positions, arch.grid, width, arch.cls_token)[None]
    return {name: np.ascontiguousarray(array.astype(dtype)) for name, array in out.items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Writes weights to a safetensors file and returns its path."""

    def write(weights: Weights, name: str = "weights_in.safetensors") -> str:
        path = tmp_path / name
        save_file(weights, path)
        return str(path)

    return write


def as_ours(arch: Arch, folder: Path, params: Weights | None = None, said: Stated | None = None) -> Path:
    """An imported folder: random weights unless `params` are given, and what is said of the pixels."""
    folder.mkdir()
    about = {"arch": arch.to_json()} | ({"stated": said.to_json()} if said else {})
    params = random_params(arch) if params is None else params
    save_file(params, folder / "weights.safetensors", metadata={METADATA_KEY: json.dumps(about)})
    return folder


def run(*arguments: object) -> int:
    """The command line, in this process."""
    return main([str(a) for a in arguments])


def imported(folder: Path) -> Weights:
    """What an import wrote."""
    return load_file(folder / "weights.safetensors")
