"""Which of our parameters is which of theirs, and how the arrays are laid out on either side.

A table is a list of `Entry`; read left to right it imports, right to left it exports. It knows no sizes but
those in `Parts`: everything else is in the arrays. Names are flat paths (`encoder/blocks/layers/attn/qkv` for
ours, `blocks.0.attn.qkv.weight` for theirs).
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from amd_jax.convert.network import Network, Shape, Triple

Arrays = list[np.ndarray]
_PROJECTION = re.compile(
    r"(?:aligned_feature_projection_heads|encoder\.projection_heads)\.(\d+)\.(?:(\d+)\.)?(fc1\.)?weight"
)


class Parts(NamedTuple):
    """What a table has to know beforehand: of a video or not, with a decoder or not, and how many heads.

    `packed`: the two layers before a SwiGLU's product are one in the file. `cls_row`: where there is a CLS
    token, the position table has a row for it.
    """

    video: bool
    pretrain: bool
    patch: Triple
    channels: int
    projections: int = 0
    mlps: int = 0  # of a projection
    generators: int = 0
    packed: bool = False
    cls_row: bool = True

    @classmethod
    def of(cls, network: Network) -> "Parts":
        """Those of a model."""
        a, n = network.align, network
        counts = (max(len(a.student_direct), len(a.student_gen)), a.projection_mlps) if a else (0, 0)
        generators = len(a.student_gen) if a else 0
        return cls(n.video, n.decoder is not None, n.patch, n.channels, *counts, generators)

    @classmethod
    def of_names(cls, names: Mapping[str, np.ndarray], kernel: Shape) -> "Parts":
        """Those of a file, from its names (and some shapes) and the shape of its patch embedding."""
        video = len(kernel) == 5
        patch = (kernel[2] if video else 1, kernel[-2], kernel[-1])
        decoders = ("decoder_embed.weight", "decoder.decoder_embed.weight", "encoder_to_decoder.weight")
        heads = [m.groups() for name in names if (m := _PROJECTION.fullmatch(name))]
        mlps = len({mlp for _, mlp, fc1 in heads if fc1})
        generators = numbers(names, "generators.")
        pretrain = any(name in names for name in decoders)
        packed = any(
            {first, last} <= names.keys() and names[first].shape[:1] == (2 * names[last].shape[-1],)
            for first, last in (
                ("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"),
                ("encoder.layer.0.mlp.weights_in.weight", "encoder.layer.0.mlp.weights_out.weight"),
            )
        )
        rows = names["pos_embed"].shape[-2] if "pos_embed" in names else 0
        alone = "reg_token" in names and math.isqrt(rows) ** 2 == rows  # timm's no_embed_class
        count = len({n for n, *_ in heads})
        return cls(video, pretrain, patch, kernel[1], count, mlps, len(generators), packed, not alone)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Some of our arrays and the arrays of theirs that hold the same numbers.

    Where `theirs` hold a `{}`, it is the number of a layer, and ours are stacked along a first axis.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[[Arrays], Arrays]  # theirs -> ours, of one layer
    write: Callable[[Arrays], Arrays]  # ours -> theirs, of one layer

    @property
    def stacked(self) -> bool:
        return "{}" in self.theirs[0]

    def names(self, depth: int) -> list[str]:
        """Every name of theirs that it stands for."""
        return [name.format(i) for name in self.theirs for i in range(depth if self.stacked else 1)]


def same(ours: str, theirs: str) -> Entry:
    """The same numbers, which theirs have without our axis for heads."""
    return Entry((ours,), (theirs,), list, lambda a: [a[0].reshape(-1)])


def token(ours: str, theirs: str) -> Entry:
    """A token: theirs is `[1, 1, width]`."""
    return Entry((ours,), (theirs,), lambda a: [a[0].reshape(-1)], lambda a: [a[0][None, None]])


def positions(ours: str, theirs: str) -> Entry:
    """A position table, or several tokens: theirs is `[1, (1 +) tokens, width]`."""
    return Entry((ours,), (theirs,), lambda a: [a[0].reshape(a[0].shape[-2:])], lambda a: [a[0][None]])


def patch_positions(ours: str, theirs: str) -> Entry:
    """A position table without a row for the CLS token, whose position is zero."""
    return Entry(
        (ours,),
        (theirs,),
        lambda a: [np.pad(a[0].reshape(a[0].shape[-2:]), ((1, 0), (0, 0)))],
        lambda a: [a[0][None, 1:]],
    )


def equal(ours: str, theirs: str) -> Entry:
    """The same array on both sides."""
    return Entry((ours,), (theirs,), list, list)


def linear(ours: str, theirs: str) -> list[Entry]:
    """A linear layer: theirs is `[out, in]`, ours `[in, out]`."""
    kernel = Entry((f"{ours}/kernel",), (f"{theirs}.weight",), lambda a: [a[0].T], lambda a: [a[0].T])
    return [kernel, same(f"{ours}/bias", f"{theirs}.bias")]


def packed_gate(ours: str, theirs: str) -> list[Entry]:
    """The first layers of a SwiGLU, in theirs one: the gate, then what it gates."""
    first = (f"{ours}/gate", f"{ours}/fc1")
    return [
        Entry(
            tuple(f"{name}/kernel" for name in first),
            (f"{theirs}.weight",),
            lambda a: np.split(a[0].T, 2, axis=-1),
            lambda a: [np.concatenate(a, axis=-1).T],
        ),
        Entry(
            tuple(f"{name}/bias" for name in first),
            (f"{theirs}.bias",),
            lambda a: np.split(a[0], 2),
            lambda a: [np.concatenate(a)],
        ),
    ]


def separate_qkv(ours: str, theirs: tuple[str, ...]) -> Entry:
    """q, k and v are three linear layers `[width, width]` in theirs."""
    return Entry(
        (ours,),
        tuple(f"{name}.weight" for name in theirs),
        lambda x: [np.stack([y.T for y in x], axis=1)],
        lambda x: [x[0][:, i].reshape(len(x[0]), -1).T for i in range(3)],
    )


def norm(ours: str, theirs: str) -> list[Entry]:
    """A LayerNorm."""
    return [same(f"{ours}/scale", f"{theirs}.weight"), same(f"{ours}/bias", f"{theirs}.bias")]


def patch_embed(theirs: str, parts: Parts) -> list[Entry]:
    """A convolution with stride = kernel: theirs `[width, channels, (t,) h, w]`, ours `[t·h·w·c, width]`."""
    ours, size = "encoder/patch_embed", parts.patch if parts.video else parts.patch[1:]
    kernel = Entry(
        (f"{ours}/kernel",),
        (f"{theirs}.weight",),
        lambda a: [np.moveaxis(a[0], (0, 1), (-1, -2)).reshape(-1, a[0].shape[0])],
        lambda a: [
            np.moveaxis(a[0].reshape(*size, parts.channels, a[0].shape[-1]), (-1, -2), (0, 1)),
        ],
    )
    return [kernel, same(f"{ours}/bias", f"{theirs}.bias")]


def blocks(ours: str, theirs: str) -> list[Entry]:
    """A stack of blocks under the official names, which timm, MAE, VideoMAE, AMD and DMAE share.

    q, k and v are in one `qkv.weight` `[3 · width, width]`; their biases are one `qkv.bias` (MAE, timm), or
    `q_bias` and `v_bias` alone (VideoMAE).
    """
    a, b = f"{ours}/layers", f"{theirs}.{{}}"
    kernel = Entry(
        (f"{a}/attn/qkv",),
        (f"{b}.attn.qkv.weight",),
        lambda x: [np.moveaxis(x[0].reshape(3, x[0].shape[0] // 3, -1), -1, 0)],
        lambda x: [np.moveaxis(x[0], 0, -1).reshape(math.prod(x[0].shape[1:]), -1)],
    )
    biases = Entry(
        tuple(f"{a}/attn/{n}_bias" for n in "qkv"),
        (f"{b}.attn.qkv.bias",),
        lambda x: list(x[0].reshape(3, -1)),
        lambda x: [np.concatenate([y.reshape(-1) for y in x])],
    )
    return [
        *norm(f"{a}/norm1", f"{b}.norm1"),
        *(kernel, biases, *(same(f"{a}/attn/{n}_bias", f"{b}.attn.{n}_bias") for n in "qv")),
        *linear(f"{a}/attn/proj", f"{b}.attn.proj"),
        *norm(f"{a}/norm2", f"{b}.norm2"),
        *linear(f"{a}/mlp/fc1", f"{b}.mlp.fc1"),
        *linear(f"{a}/mlp/fc2", f"{b}.mlp.fc2"),
    ]


def numbers(names: Iterable[str], prefix: str) -> set[int]:
    """The numbers that come after `prefix`."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d{{1,6}})\.")
    return {int(m[1]) for name in names if (m := pattern.match(name))}


def present(table: Iterable[Entry], theirs: Collection[str]) -> list[Entry]:
    """The entries that a file has."""
    return _first(entry for entry in table if all(name.format(0) in theirs for name in entry.theirs))


def first_shapes(table: Iterable[Entry], theirs: Mapping[str, np.ndarray]) -> dict[str, Shape]:
    """The shapes that ours will have, by those of the first layer and the number of layers; nothing is read.

    Raises:
      ValueError, IndexError: an array has too few axes.
    """
    out: dict[str, Shape] = {}
    for entry in table:
        blank = [_blank(theirs[name.format(0)].shape) for name in entry.theirs]
        layers = numbers(theirs, entry.theirs[0].split("{}")[0]) if entry.stacked else ()
        for name, array in zip(entry.ours, entry.read(blank), strict=True):
            out[name] = (len(layers), *array.shape) if entry.stacked else array.shape
    return out


def their_shapes(entry: Entry, ours: Mapping[str, Shape]) -> list[Shape]:
    """The shapes, of one layer, that theirs must have for ours to have the shapes `ours`."""
    blank = [_blank(ours[name][entry.stacked :]) for name in entry.ours]
    return [array.shape for array in entry.write(blank)]


def read(table: Iterable[Entry], theirs: Mapping[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    """Ours from theirs. The stored type stays; float32 holds all where the layers' types differ."""
    out: dict[str, np.ndarray] = {}
    for entry in table:
        depth = len(numbers(theirs, entry.theirs[0].split("{}")[0])) if entry.stacked else 1
        layers = [entry.read([theirs[name.format(i)] for name in entry.theirs]) for i in range(depth)]
        for name, arrays in zip(entry.ours, zip(*layers, strict=True), strict=True):
            types = {array.dtype for array in arrays}
            array = np.stack([x if len(types) == 1 else x.astype(np.float32) for x in arrays])
            out[name] = network.cut_heads(name, array if entry.stacked else array[0])
    return out


def writable(table: Iterable[Entry], ours: Collection[str]) -> list[Entry]:
    """The entries that ours has everything for."""
    return _first(entry for entry in table if all(name in ours for name in entry.ours))


def write(table: Iterable[Entry], ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `read`: their names to their arrays, of the entries that are `writable`."""
    out: dict[str, np.ndarray] = {}
    for entry in writable(table, ours):
        for i in range(len(ours[entry.ours[0]]) if entry.stacked else 1):
            arrays = entry.write([ours[name][i] if entry.stacked else ours[name] for name in entry.ours])
            named = zip(entry.theirs, arrays, strict=True)
            out |= {name.format(i): np.ascontiguousarray(array) for name, array in named}
    return out


def _first(table: Iterable[Entry]) -> list[Entry]:
    """Of several entries for the same parameter the first."""
    out, covered = list[Entry](), set[str]()
    for entry in table:
        if covered.isdisjoint(entry.ours):
            out.append(entry)
            covered.update(entry.ours)
    return out


def _blank(shape: Shape) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.zeros((), np.int8), shape)
