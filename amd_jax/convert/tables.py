"""Which of our parameters is which of theirs, and how the arrays are laid out on either side.

A table is a list of `Entry`; read left to right it imports, right to left it exports. Names are flat paths
(`encoder/blocks/layers/attn/qkv` for ours, `blocks.0.attn.qkv.weight` for theirs).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amd_jax.convert.arch import Arch, Stack

Arrays = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Some of our arrays and the arrays of theirs that hold the same numbers.

    With `depth` set, `theirs` holds a `{}` for the layer number and ours are stacked along a first axis.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[[Arrays], Arrays]  # theirs -> ours, of one layer
    write: Callable[[Arrays], Arrays]  # ours -> theirs, of one layer
    depth: int | None = None


def same(ours: str, theirs: str, shape: tuple[int, ...] | None = None, depth: int | None = None) -> Entry:
    """The same numbers in the same order; `shape` is theirs where it differs, ours is without axes of 1."""
    return Entry(
        (ours,),
        (theirs,),
        lambda a: [a[0].reshape(a[0].shape[-1:]) if shape else a[0]],
        lambda a: [a[0].reshape(shape) if shape else a[0]],
        depth,
    )


def linear(ours: str, theirs: str, bias: bool = True, depth: int | None = None) -> list[Entry]:
    """A linear layer: theirs is `[out, in]`, ours `[in, out]`."""
    kernel = Entry((f"{ours}/kernel",), (f"{theirs}.weight",), lambda a: [a[0].T], lambda a: [a[0].T], depth)
    return [kernel, same(f"{ours}/bias", f"{theirs}.bias", depth=depth)] if bias else [kernel]


def norm(ours: str, theirs: str, depth: int | None = None) -> list[Entry]:
    """A LayerNorm."""
    return [
        same(f"{ours}/scale", f"{theirs}.weight", depth=depth),
        same(f"{ours}/bias", f"{theirs}.bias", depth=depth),
    ]


def patch_embed(ours: str, theirs: str, arch: Arch) -> list[Entry]:
    """A convolution with stride = kernel: theirs `[width, channels, (t,) h, w]`, ours `[t·h·w·c, width]`."""
    size, channels = arch.patch if arch.video else arch.patch[1:], arch.channels

    def read(a: Arrays) -> Arrays:
        return [np.moveaxis(a[0], (0, 1), (-1, -2)).reshape(-1, a[0].shape[0])]

    def write(a: Arrays) -> Arrays:
        return [np.moveaxis(a[0].reshape(*size, channels, -1), (-1, -2), (0, 1))]

    kernel = Entry((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)
    return [kernel, same(f"{ours}/bias", f"{theirs}.bias")]


def fused_qkv(ours: str, theirs: str, block: Stack) -> list[Entry]:
    """q, k and v in one `qkv.weight` `[3 · width, width]`, as timm, MAE and VideoMAE have them.

    The biases are one `qkv.bias` (MAE, timm), or `q_bias` and `v_bias` alone (VideoMAE).
    """
    heads = (block.heads, block.width // block.heads)
    flat, depth = (block.width,), block.depth
    kernel = Entry(
        (f"{ours}/qkv",),
        (f"{theirs}.qkv.weight",),
        lambda a: [np.moveaxis(a[0].reshape(3, *heads, -1), -1, 0)],
        lambda a: [np.moveaxis(a[0], 0, -1).reshape(3 * block.width, -1)],
        depth,
    )
    if block.qkv_bias == "qkv":
        biases = Entry(
            tuple(f"{ours}/{n}_bias" for n in "qkv"),
            (f"{theirs}.qkv.bias",),
            lambda a: list(a[0].reshape(3, *heads)),
            lambda a: [np.concatenate([x.reshape(flat) for x in a])],
            depth,
        )
        return [kernel, biases]
    if block.qkv_bias == "qv":
        biases = Entry(
            (f"{ours}/q_bias", f"{ours}/v_bias"),
            (f"{theirs}.q_bias", f"{theirs}.v_bias"),
            lambda a: [x.reshape(heads) for x in a],
            lambda a: [x.reshape(flat) for x in a],
            depth,
        )
        return [kernel, biases]
    return [kernel]


def blocks(ours: str, theirs: str, stack: Stack) -> list[Entry]:
    """A stack of blocks under the official names, which timm, MAE, VideoMAE, AMD and DMAE share."""
    a, b, depth = f"{ours}/layers", f"{theirs}.{{}}", stack.depth
    return [
        *norm(f"{a}/norm1", f"{b}.norm1", depth),
        *fused_qkv(f"{a}/attn", f"{b}.attn", stack),
        *linear(f"{a}/attn/proj", f"{b}.attn.proj", depth=depth),
        *norm(f"{a}/norm2", f"{b}.norm2", depth),
        *linear(f"{a}/mlp/fc1", f"{b}.mlp.fc1", depth=depth),
        *linear(f"{a}/mlp/fc2", f"{b}.mlp.fc2", depth=depth),
    ]


def their_names(entry: Entry) -> list[str]:
    """Every name of theirs that an entry stands for."""
    if entry.depth is None:
        return list(entry.theirs)
    return [name.format(i) for name in entry.theirs for i in range(entry.depth)]


def their_shapes(entry: Entry, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes, of one layer, that theirs must have for ours to have `shapes`."""
    skip = 0 if entry.depth is None else 1
    blank = [np.broadcast_to(np.zeros((), np.int8), shapes[name][skip:]) for name in entry.ours]
    return [array.shape for array in entry.write(blank)]


# Receives one of our arrays, or one layer of it.
Sink = Callable[[str, int | None, np.ndarray], None]


def stream(entry: Entry, tensors: Callable[[str], np.ndarray], sink: Sink, depth: int | None = None) -> None:
    """Read an entry layer by layer, only the first `depth` ones if that is given."""
    if entry.depth is None:
        arrays = entry.read([tensors(name) for name in entry.theirs])
        for ours, array in zip(entry.ours, arrays, strict=True):
            sink(ours, None, array)
        return
    for i in range(entry.depth if depth is None else depth):
        arrays = entry.read([tensors(name.format(i)) for name in entry.theirs])
        for ours, array in zip(entry.ours, arrays, strict=True):
            sink(ours, i, array)


def read(table: Sequence[Entry], tensors: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Fill our arrays from theirs; `tensors` looks one up by name."""
    out: dict[str, np.ndarray] = {}
    for entry in table:

        def sink(name: str, layer: int | None, array: np.ndarray, depth: int | None = entry.depth) -> None:
            if layer is None:
                out[name] = np.ascontiguousarray(array)
                return
            if layer == 0:
                out[name] = np.empty((depth or 0, *array.shape), array.dtype)
            out[name][layer] = array

        stream(entry, tensors, sink)
    return out


def write(table: Sequence[Entry], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `read`: their names to their arrays."""
    out: dict[str, np.ndarray] = {}
    for entry in table:
        for i in range(entry.depth or 1):
            ours = [arrays[name] if entry.depth is None else arrays[name][i] for name in entry.ours]
            theirs = entry.write(ours)
            out |= {n.format(i): np.ascontiguousarray(a) for n, a in zip(entry.theirs, theirs, strict=True)}
    return out


def nest(flat: dict[str, np.ndarray]) -> dict:
    """`{"a/b": x}` to `{"a": {"b": x}}`."""
    tree: dict = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The inverse of `nest`, on the host."""
    import jax  # the only need for it here, and the command line starts without it

    from amd_jax.trees import path_name

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}
