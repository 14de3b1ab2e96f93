"""Decides, before anything is read, what becomes of every weight of a file and of every parameter of ours.

Strict: a weight is used, or dropped for a stated reason; a parameter is filled, or named as newly
initialised. Anything else is an error that lists both sides.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from amd_jax.config import ConfigError
from amd_jax.convert import resize
from amd_jax.convert.arch import Arch, Shape
from amd_jax.convert.kinds import Found
from amd_jax.convert.official import DECODER_POSITIONS, ENCODER_POSITIONS
from amd_jax.convert.probe import fixed_table
from amd_jax.convert.readers import Info
from amd_jax.convert.report import Row, condense
from amd_jax.convert.tables import Entry, Sink, stream, their_names, their_shapes

PATCH_KERNEL = "encoder/patch_embed/kernel"


@dataclasses.dataclass
class Plan:
    """What to read, and the account of it.

    Attributes:
      reads: entries, and how many of their layers.
      made: parameters that are computed instead of copied.
      new: parameters that the file cannot fill.
      rows: the account, a row for each weight and each new parameter.
    """

    found: Found
    want: Arch
    reads: list[tuple[Entry, int | None]] = dataclasses.field(default_factory=list)
    made: dict[str, Callable[[], np.ndarray]] = dataclasses.field(default_factory=dict)
    new: dict[str, Shape] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)

    def run(self, sink: Sink) -> None:
        """Reads tensor after tensor and hands our arrays over, layer by layer."""
        wanted = self.want.shapes()

        def pass_on(name: str, layer: int | None, array: np.ndarray) -> None:
            if name in wanted and name not in self.made and name not in self.new:
                sink(name, layer, array)

        for entry, depth in self.reads:
            stream(entry, lambda name: self.found.source.fetch(name, None), pass_on, depth)
        for name, make in self.made.items():
            sink(name, None, make())

    def info(self, name: str) -> Info:
        """Shape and stored type of a parameter that will be filled."""
        shape = self.want.shapes()[name]
        if name in self.made:
            table = self.found.positions.get(name)
            dtype = self.found.source.infos[table].dtype if table else np.dtype(np.float32)
            return Info(shape, dtype)
        entry = next(e for e, _ in self.reads if name in e.ours)
        types = [self.found.source.infos[n].dtype for n in their_names(entry)]
        # NumPy has no common type for bfloat16 and others; float32 holds them all.
        return Info(shape, types[0] if len(set(types)) == 1 else np.dtype(np.float32))


def make_plan(found: Found, want: Arch, reasons: dict[str, str] | None = None) -> Plan:
    """Plans to fill `want` from a file.

    Args:
      found: the file.
      want: what is to be filled; its encoder may have fewer blocks and another grid or tubelet.
      reasons: beginnings of our names, and why such parameters are not wanted.

    Raises:
      ConfigError: the file has something unknown, lacks something, or has it in another shape.
    """
    plan = Plan(found, want)
    table = [e for e in found.table if not _never_saved(e, found)]
    _check_both_sides(found, table)
    have, wanted = found.arch.shapes(), want.shapes()
    other = _other_sizes(found.arch, want)
    for entry in table:
        _plan_entry(plan, entry, have, wanted, other, reasons or {})
    _plan_positions(plan)
    _plan_patch(plan)
    filled = {name for entry, _ in plan.reads for name in entry.ours} | plan.made.keys()
    for name, shape in wanted.items():
        if name not in filled or _part(name) in other:
            plan.new[name] = shape
            note = other.get(_part(name), "not in the file")
            plan.rows.append(Row("new", "", name, shape, f"newly initialised: {note}"))
    for name, reason in found.unused.items():
        plan.rows.append(Row("dropped", found.name_in_file(name), "", found.source.infos[name].shape, reason))
    for name, reason in found.file.skipped.items():
        plan.rows.append(Row("dropped", name, "", (), reason))
    return plan


def _never_saved(entry: Entry, found: Found) -> bool:
    """AMD's released code keeps its generators' mask tokens in a plain list, so they are not in its files."""
    if not re.fullmatch(r"generator_\d+/mask_token", entry.ours[0]):
        return False
    return entry.theirs[0] not in found.source.infos


def _check_both_sides(found: Found, table: list[Entry]) -> None:
    infos, shapes = found.source.infos, found.arch.shapes()
    expected = {name for entry in table for name in their_names(entry)}
    missing = expected - infos.keys()
    extra = infos.keys() - expected - {*found.positions.values()} - found.unused.keys()
    wrong = []
    for entry in table:
        for theirs, shape in zip(entry.theirs, their_shapes(entry, shapes), strict=True):
            for name in (theirs.format(i) for i in range(entry.depth or 1)):
                info = infos.get(name)
                if info and info.shape != shape:
                    wrong.append(f"{found.name_in_file(name)} is {list(info.shape)}, expected {list(shape)}")
                elif info and info.dtype.kind not in "fV":  # bfloat16 is of kind V
                    wrong.append(
                        f"{found.name_in_file(name)} holds {info.dtype}, not numbers with a fraction"
                    )
    parts = []
    if extra:
        parts.append("in the file but unknown: " + condense([found.name_in_file(n) for n in extra]))
    if missing:
        parts.append("expected but not in the file: " + condense(list(missing)))
    if wrong:
        parts.append("of another shape or type: " + "; ".join(wrong[:4]) + _more(len(wrong) - 4))
    if parts:
        raise ConfigError(f"{found.file.path}: does not fit {found.kind}: {'; '.join(parts)}")


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _part(name: str) -> str:
    """The part that stands or falls together: "decoder", "projection_0", "generator_0", "head", "encoder"."""
    first = name.split("/")[0]
    return "decoder" if first.startswith("decoder") else first


def _other_sizes(have: Arch, want: Arch) -> dict[str, str]:
    """Parts beside the encoder that both sides have, but of other sizes; and the reason not to load them."""
    a, b = have.shapes(), want.shapes()
    out: dict[str, str] = {}
    for name in b:
        part = _part(name)
        if part != "encoder" and name in a and a[name] != b[name]:
            out.setdefault(part, f"{name} is {list(a[name])} in the file, {list(b[name])} here")
    if have.decoder and want.decoder and have.decoder.positions != want.decoder.positions:
        out["decoder"] = f"positions are {have.decoder.positions} in the file, {want.decoder.positions} here"
    if have.decoder and want.decoder and a.keys() ^ b.keys():
        names = [n for n in a.keys() ^ b.keys() if _part(n) == "decoder"]
        if names:
            out.setdefault("decoder", f"only one side has {condense(names)}")
    return out


def _plan_entry(
    plan: Plan,
    entry: Entry,
    have: dict[str, Shape],
    wanted: dict[str, Shape],
    other: dict[str, str],
    reasons: dict[str, str],
) -> None:
    def row(status: str, start: int | None, stop: int | None, note: str) -> Row:
        found = plan.found
        if entry.depth is None:
            theirs = [found.name_in_file(name) for name in entry.theirs]
        else:
            span = (start or 0, entry.depth if stop is None else stop)
            theirs = [found.layers_in_file(name, *span) for name in entry.theirs]
        shapes, ours = (wanted, ", ".join(entry.ours)) if status == "used" else (have, "")
        return Row(status, ", ".join(theirs), ours, shapes[entry.ours[0]], note)

    part = _part(entry.ours[0])
    if entry.ours[0] not in wanted or part in other:
        note = other.get(part) or next(
            (why for begin, why in reasons.items() if entry.ours[0].startswith(begin)), "not needed here"
        )
        plan.rows.append(row("dropped", None, None, note))
        return
    depth = None
    if entry.depth is not None and "encoder/" in entry.ours[0]:
        depth = plan.want.encoder.depth
    plan.reads.append((entry, depth))
    plan.rows.append(row("used", 0, depth, ""))
    if depth is not None and entry.depth is not None and depth < entry.depth:
        plan.rows.append(row("dropped", depth, entry.depth, "above the last layer that is needed"))


def _plan_positions(plan: Plan) -> None:
    """Position tables: copied if learned and of our size, otherwise interpolated or regenerated."""
    found, have, want = plan.found, plan.found.arch, plan.want
    theirs = found.positions.get(ENCODER_POSITIONS, "")
    shape = found.source.infos[theirs].shape if theirs else ()
    name = found.name_in_file(theirs)
    same_grid = have.grid == want.grid
    grids = f"{_grid(have)} tokens in the file, {_grid(want)} here"
    if have.positions == "learned":
        rows = have.cls_token + have.tokens
        if len(shape) < 2 or shape[-2:] != (rows, have.encoder.width):
            what = f"{name or ENCODER_POSITIONS} is {list(shape)}"
            raise ConfigError(f"{found.file.path}: {what}, but the grid is {_grid(have)} tokens")

        def learned() -> np.ndarray:
            table = found.source.fetch(theirs, None).reshape(rows, -1)
            return table if same_grid else resize.positions(table, have.cls_token, have.grid, want.grid)

        plan.made[ENCODER_POSITIONS] = learned
        if same_grid:
            plan.rows.append(Row("used", name, ENCODER_POSITIONS, want.shapes()[ENCODER_POSITIONS]))
        else:
            note = f"bicubic in space, linear in time: {grids}"
            plan.rows.append(Row("interpolated", name, ENCODER_POSITIONS, shape, note))
    elif want.positions == "learned":
        # As MAE's interpolate_pos_embed: a place in the image keeps the positions it was trained with.
        table = fixed_table(have.positions, have.grid, want.encoder.width, want.cls_token)
        if not same_grid:
            table = resize.positions(table, want.cls_token, have.grid, want.grid)
        plan.made[ENCODER_POSITIONS] = lambda: table
        note = f"starts from the {have.positions} table the file was trained with"
        note += "" if same_grid else f", bicubic in space, linear in time: {grids}"
        plan.rows.append(Row("regenerated", name, ENCODER_POSITIONS, table.shape, note))
    else:
        note = f"our {have.positions} table" + (", equal to the file's" if theirs else "")
        if not same_grid:
            note = f"{have.positions} for another size: {grids}; learned positions would be interpolated"
        plan.rows.append(Row("regenerated", name, "positions", shape, note))
    _plan_decoder_positions(plan)


def _plan_decoder_positions(plan: Plan) -> None:
    found, want = plan.found, plan.want
    theirs = found.positions.get(DECODER_POSITIONS)
    if theirs is None:
        return
    shape, name = found.source.infos[theirs].shape, found.name_in_file(theirs)
    if want.decoder is None:
        plan.rows.append(Row("dropped", name, "", shape, "decoder not needed"))
    elif want.decoder.positions == "learned" and DECODER_POSITIONS in want.shapes():
        flat = want.shapes()[DECODER_POSITIONS]
        plan.made[DECODER_POSITIONS] = lambda: found.source.fetch(theirs, None).reshape(flat)
        plan.rows.append(Row("used", name, DECODER_POSITIONS, flat, "not one of our fixed tables"))
    else:
        equal = found.arch.decoder is not None and found.arch.decoder.positions == want.decoder.positions
        note = f"our {want.decoder.positions} table" + (", equal to the file's" if equal else "")
        plan.rows.append(Row("regenerated", name, "decoder positions", shape, note))


def _plan_patch(plan: Plan) -> None:
    """A patch embedding with another number of frames."""
    old, new = plan.found.arch.patch[0], plan.want.patch[0]
    if old == new:
        return
    entry = next(e for e in plan.found.table if PATCH_KERNEL in e.ours)
    fetch = plan.found.source.fetch

    def kernel() -> np.ndarray:
        return resize.tubelet(entry.read([fetch(entry.theirs[0], None)])[0], old, new)

    plan.made[PATCH_KERNEL] = kernel
    how = "inflated" if old == 1 else "summed over time" if new == 1 else "summed over time and spread again"
    note = f"{how}: tubelets of {old} frames in the file, {new} here"
    plan.rows.append(Row("changed", plan.found.name_in_file(entry.theirs[0]), PATCH_KERNEL, (), note))


def _grid(arch: Arch) -> str:
    return "x".join(map(str, arch.grid))
