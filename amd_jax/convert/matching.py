"""Decides what becomes of every weight of a file and of every parameter of a model, by comparing their trees.

Strict: a weight is used, or dropped for a stated reason; a parameter is filled, or named as newly
initialised. Anything else is an error that names both sides.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from amd_jax.convert import resize
from amd_jax.convert.account import Row, condense
from amd_jax.convert.guesses import fixed_table
from amd_jax.convert.kinds import Found
from amd_jax.convert.network import DECODER_POSITIONS, ENCODER_POSITIONS, Shape, Triple, times
from amd_jax.errors import WeightsError
from amd_jax.models.student import DecoderConfig
from amd_jax.models.vit import ViTConfig

PATCH_KERNEL = "encoder/patch_embed/kernel"
_ENCODER_BLOCKS = "encoder/blocks/layers/"


@dataclasses.dataclass(frozen=True)
class Want:
    """A model to be filled: its parameters by name and shape, and what these do not show."""

    shapes: Mapping[str, Shape]
    encoder: ViTConfig
    patch: Triple
    decoder: DecoderConfig | None = None

    @classmethod
    def all_of(cls, found: Found) -> "Want":
        """The model that a file was found to be."""
        n = found.network
        return cls(found.shapes, n.encoder, n.patch, n.decoder)


@dataclasses.dataclass
class Match:
    """What a file has for a model.

    Attributes:
      arrays: our names to numbers in the stored type, or in float32 where they had to be computed.
      new: parameters that the file cannot fill.
      rows: the account, a row for each weight and each new parameter.
    """

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    new: dict[str, Shape] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)


def match(found: Found, want: Want, reasons: Mapping[str, str] | None = None) -> Match:
    """Fills `want` from a file.

    Args:
      found: the file.
      want: what is to be filled; its encoder may have fewer blocks and another grid or tubelet.
      reasons: beginnings of our names, and why such parameters are not wanted.

    Raises:
      WeightsError: the encoder has a parameter in another shape.
    """
    out, other = Match(), _other_sizes(found, want)
    for name, array in found.arrays.items():
        if name not in (ENCODER_POSITIONS, DECODER_POSITIONS):
            _match_one(out, found, want, name, array, other, reasons or {})
    _match_positions(out, found, want)
    _match_decoder_positions(out, found, want, other)
    for name, shape in want.shapes.items():
        if name not in out.arrays:
            out.new[name] = shape
            note = other.get(_part(name), "not in the file")
            out.rows.append(Row("new", "", name, shape, f"newly initialised: {note}"))
    out.rows += found.unused
    out.rows += [Row("dropped", name, "", (), why) for name, why in found.source.skipped.items()]
    return out


def _part(name: str) -> str:
    """The part that stands or falls together: "decoder", "projection_0", "generator_0", "head", "encoder"."""
    first = name.split("/")[0]
    return "decoder" if first.startswith("decoder") else first


def _other_sizes(found: Found, want: Want) -> dict[str, str]:
    """Parts beside the encoder that both sides have, but of other sizes; and the reason not to load them."""
    have, d, wanted = found.shapes, found.network.decoder, want.decoder
    out: dict[str, str] = {}
    for name, shape in want.shapes.items():
        if _part(name) != "encoder" and name in found.arrays and found.arrays[name].shape != shape:
            text = f"{name} is {list(found.arrays[name].shape)} in the file, {list(shape)} here"
            out.setdefault(_part(name), text)
    if d and wanted and d.positions != wanted.positions:
        out["decoder"] = f"positions are {d.positions} in the file, {wanted.positions} here"
    if d and wanted:
        one_side = [n for n in have.keys() ^ want.shapes.keys() if _part(n) == "decoder"]
        if one_side:
            out.setdefault("decoder", f"only one side has {condense(one_side)}")
    return out


def _match_one(
    out: Match,
    found: Found,
    want: Want,
    name: str,
    array: np.ndarray,
    other: Mapping[str, str],
    reasons: Mapping[str, str],
) -> None:
    """A parameter that is no position table."""
    layers = len(array) if "/layers/" in name else 1
    shape, part = want.shapes.get(name), _part(name)
    if shape is None or part in other:
        usual = next((why for begin, why in reasons.items() if name.startswith(begin)), "not needed here")
        note = other.get(part, usual)
        out.rows.append(Row("dropped", found.called(name, 0, layers), "", array.shape, note))
        return
    if name.startswith(_ENCODER_BLOCKS) and shape[0] < layers and shape[1:] == array.shape[1:]:
        theirs = found.called(name, shape[0], layers)
        array, layers = array[: shape[0]], shape[0]
        why = "above the last layer that is needed"
        out.rows.append(Row("dropped", theirs, "", array.shape, why))
    if name == PATCH_KERNEL and (old := found.network.patch[0]) != (new := want.patch[0]):
        array = resize.tubelet(array, old, new)
        how = "summed over time" if new == 1 else "summed over time and spread again"
        note = f"{'inflated' if old == 1 else how}: tubelets of {old} frames in the file, {new} here"
        out.rows.append(Row("changed", found.called(name), name, (), note))
    if array.shape != shape:
        where = f"{found.source.path}: {found.called(name, 0, layers)}"
        raise WeightsError(f"{where} is {list(array.shape)} in the file, {name} is {list(shape)} here")
    out.arrays[name] = array
    out.rows.append(Row("used", found.called(name, 0, layers), name, shape))


def _match_positions(out: Match, found: Found, want: Want) -> None:
    """The encoder's table: copied if learned and of our size, otherwise interpolated or regenerated."""
    have, wanted, name = found.network.encoder, want.encoder, ENCODER_POSITIONS
    theirs = found.called(name) if name in found.origin or name in found.arrays else ""
    table, same_grid = found.arrays.get(name), have.grid == wanted.grid
    grids = f"{times(have.grid)} tokens in the file, {times(wanted.grid)} here"
    antialias = found.network.antialias
    how = f"bicubic{', antialiased,' if antialias else ''} in space, linear in time: {grids}"
    if have.positions == "learned":
        shape = (found.network.rows, have.block.width)
        if table is None or table.shape != shape:
            what = "no positions in it" if table is None else f"{theirs} is {list(table.shape)}"
            raise WeightsError(f"{found.source.path}: {what}, but the grid is {times(have.grid)} tokens")
        if same_grid:
            out.rows.append(Row("used", theirs, name, shape))
        else:
            table = resize.positions(table, have.cls_token, have.grid, wanted.grid, antialias)
            out.rows.append(Row("interpolated", theirs, name, shape, how))
        out.arrays[name] = table
    elif have.positions == "rotary":
        out.rows.append(Row("regenerated", "", "positions", (), "rotary, for any grid"))
    elif wanted.positions == "learned":
        # As MAE's interpolate_pos_embed: a place in the image keeps the positions it was trained with.
        table = fixed_table(have.positions, have.grid, wanted.block.width, wanted.cls_token)
        note = f"starts from the {have.positions} table the file was trained with"
        if not same_grid:
            table, note = resize.positions(table, wanted.cls_token, have.grid, wanted.grid), f"{note}, {how}"
        out.arrays[name] = table
        out.rows.append(Row("regenerated", theirs, name, table.shape, note))
    else:
        note = f"our {have.positions} table" + (", equal to the file's" if theirs else "")
        if have.positions == "sincos_2d" and not same_grid and have.grid[1:] == wanted.grid[1:]:
            note = f"our sincos_2d table, the same for every time: {grids}"
        elif not same_grid:
            note = f"{have.positions} for another size: {grids}; learned positions would be interpolated"
        out.rows.append(Row("regenerated", theirs, "positions", (), note))


def _match_decoder_positions(out: Match, found: Found, want: Want, other: Mapping[str, str]) -> None:
    name, table = DECODER_POSITIONS, found.arrays.get(DECODER_POSITIONS)
    if table is None and name not in found.origin:
        return
    theirs = found.called(name)
    if want.decoder is None or "decoder" in other:
        out.rows.append(Row("dropped", theirs, "", (), other.get("decoder", "decoder not needed")))
    elif table is not None and name in want.shapes:
        out.arrays[name] = table
        out.rows.append(Row("used", theirs, name, table.shape, "not one of our fixed tables"))
    else:
        note = f"our {want.decoder.positions} table, equal to the file's"
        out.rows.append(Row("regenerated", theirs, "decoder positions", (), note))
