"""Small random weights under the published names."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from amd_jax.convert.cli import main
from amd_jax.convert.files.stated import Stated
from amd_jax.convert.files.tensors import METADATA_KEY
from amd_jax.convert.guesses import fixed_table
from amd_jax.convert.names import entries, official
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Network
from amd_jax.models.blocks import BlockConfig
from amd_jax.models.student import AlignConfig, DecoderConfig
from amd_jax.models.vit import ViTConfig

Weights = dict[str, np.ndarray]
Stack = tuple[BlockConfig, int]


def stack(width: int, depth: int, heads: int, mlp: int, qkv_bias: str = "qkv") -> Stack:
    """Blocks, and how many."""
    return BlockConfig(width, heads, mlp, qkv_bias), depth


def decoder(blocks: Stack, embed_bias: bool, positions: str) -> DecoderConfig:
    """A decoder."""
    return DecoderConfig(*blocks, positions, embed_bias)


def align(width: int, count: int, bias: bool, generators: Stack | None = None, mlps: int = 0) -> AlignConfig:
    """So many projections, and generators if their blocks are given, all at the first layer."""
    layers = (1,) * count
    gen = (layers, layers, *generators) if generators else ()
    positions = "sincos_1d" if generators else "sincos_2d"
    made = AlignConfig(width, layers, layers, *gen, positions=positions, projection_bias=bias)
    return dataclasses.replace(made, projection_mlps=mlps, cls_token=not generators)


def changed(network: Network, **changes: Any) -> Network:
    """The network with other fields, also those of its encoder, whose blocks may be a `stack`."""
    blocks = changes.pop("encoder", None)
    encoder = network.encoder
    if blocks:
        encoder = dataclasses.replace(encoder, block=blocks[0], depth=blocks[1])
    own = {name: changes.pop(name) for name in ("grid", "cls_token", "positions", "depth") if name in changes}
    return dataclasses.replace(network, encoder=dataclasses.replace(encoder, **own), **changes)


def image_arch(**changes: Any) -> Network:
    """A small MAE encoder."""
    return changed(Network(ViTConfig(*stack(32, 3, 4, 64), (1, 4, 4)), (1, 8, 8), 3, False), **changes)


def mae_arch(**changes: Any) -> Network:
    """A small MAE."""
    return image_arch(**{"decoder": decoder(stack(16, 2, 2, 64), True, "sincos_2d"), **changes})


def video_arch(**changes: Any) -> Network:
    """A small fine-tuned VideoMAE."""
    encoder = ViTConfig(*stack(32, 3, 4, 64, "qv"), (2, 4, 4), False, "sincos_1d")
    network = Network(encoder, (2, 8, 8), 3, True, norm=False, classes=5, fc_norm=True)
    return changed(network, **changes)


def amd_arch(**changes: Any) -> Network:
    """A small AMD student in pre-training."""
    pixels = decoder(stack(16, 2, 2, 64, "qv"), False, "sincos_1d")
    heads = align(48, 2, False, stack(48, 2, 3, 192, "qv"))
    usual = {"decoder": pixels, "align": heads, "classes": 0, "fc_norm": False, "norm": True}
    return video_arch(**{**usual, **changes})


def random_params(arch: Network, seed: int = 0, dtype: type = np.float32) -> Weights:
    """Random parameters of ours, flat."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, shape).astype(dtype) for name, shape in arch.shapes().items()}


def published(arch: Network, seed: int = 0, dtype: type = np.float32) -> Weights:
    """Random weights under the official names, position tables included."""
    ours, e, d = random_params(arch, seed, dtype), arch.encoder, arch.decoder
    if not arch.video and e.positions != "learned":
        ours[ENCODER_POSITIONS] = fixed_table(e.positions, e.grid, e.block.width, e.cls_token)
    if not arch.video and d:
        ours[DECODER_POSITIONS] = fixed_table("sincos_2d", e.grid, d.block.width, e.cls_token)
    out = entries.write(official.table(entries.Parts.of(arch)), ours)
    return {name: np.ascontiguousarray(array.astype(dtype)) for name, array in out.items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Writes weights to a safetensors file and returns its path."""

    def write(weights: Weights, name: str = "weights_in.safetensors") -> str:
        path = tmp_path / name
        save_file(weights, path)
        return str(path)

    return write


def as_ours(arch: Network, folder: Path, params: Weights | None = None, said: Stated | None = None) -> Path:
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
