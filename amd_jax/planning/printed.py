"""A plan as a page of text."""

from collections.abc import Sequence
from typing import Any

from amd_jax.planning.roofline import Estimate

_MEMORY_NAMES = {
    "optimizer": "optimiser state",
    "padding": "padding of layouts",
    "new outputs": "outputs that are new",
    "program": "the program itself",
}


def page(name: str, estimate: Estimate) -> str:
    """Everything that is known of a run.

    Args:
      name: of its config.
      estimate: its numbers.
    """
    parts = (_head(name, estimate), _memory(estimate), _compute(estimate))
    rest = (_collectives(estimate), _bounds(estimate), _hours(estimate))
    return "\n\n".join(part for part in (*parts, *rest) if part) + "\n"


def verdict(e: Estimate) -> str:
    """Whether it fits, and what to change if not, in a sentence."""
    change = (
        f"raise accum_steps (now {e.accum_steps}), {'' if e.remat else 'set model.remat=True, '}"
        f"raise mesh.fsdp (now {e.mesh['fsdp']}), or lower batch_size (now {e.batch_size})"
    )
    if e.too_large:
        return f"It does not fit. The compiler says: {e.too_large}. To make it fit, {change}."
    if e.fits is False:
        return f"It does not fit. To make it fit, {change}."
    if e.fits and e.available is not None:
        return f"It fits, with {gib(e.available - e.need)} to spare."
    return "Temporaries are not counted: no compiler was asked."


def gib(size: float) -> str:
    """Bytes as 1.234 GiB, or what is less than a hundredth of one as 1.234 MiB."""
    return f"{size / 2**30:.3f} GiB" if abs(size) >= 2**30 / 100 else f"{size / 2**20:.3f} MiB"


def ms(seconds: float) -> str:
    """A time as 12.34 ms, or what is less than a tenth of one as 1.23 µs."""
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.2f} µs"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns that are as wide as they must be, numbers to the right; `head` may be empty."""
    lines = [[str(cell) for cell in row] for row in ([head, *rows] if head else rows)]
    body = lines[1:] if head else lines
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(_is_number(cell) for cell in column) for column in zip(*body, strict=True)]
    return "\n".join("  " + _aligned(line, widths, right) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = zip(line, widths, right, strict=True)
    return "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in cells).rstrip()


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("", "-")


def _head(name: str, e: Estimate) -> str:
    mesh = ", ".join(f"{axis}={size}" for axis, size in e.mesh.items())
    repeats = f" × {e.repeats} views" if e.repeats > 1 else ""
    return (
        f"{name} on {e.topology}: {_plural(e.chips, 'chip')} of {_plural(e.hosts, 'host')}, mesh {mesh}\n"
        f"batch {e.batch_size}{repeats} in {_plural(e.accum_steps, 'pass', 'passes')}, "
        f"{'with' if e.remat else 'without'} remat, computed in {e.dtype}; "
        f"{e.steps} steps over {e.examples} examples"
    )


def _memory(e: Estimate) -> str:
    rows = [(_MEMORY_NAMES.get(name, name), gib(size)) for name, size in e.memory.items() if size]
    rows.append(("total" if "temporaries" in e.memory else "total without temporaries", gib(e.total)))
    if e.peak_memory:
        rows.append(("peak, by the compiler", gib(e.peak_memory)))
    if e.available is not None:
        rows.append(("a chip has", gib(e.available)))
    lines = ["Memory of a chip", table((), rows), verdict(e)]
    if e.largest_batch is not None:
        lines.append(
            f"Largest batch: about {e.largest_batch}, if temporaries grow as the batch does (estimate)."
        )
    return "\n".join(lines)


def _compute(e: Estimate) -> str:
    rows = [("model, all chips", f"{e.model_flops:.4g}"), ("model, a chip", f"{e.model_flops / e.chips:.4g}")]
    if e.compiled_flops is not None:
        rows.append(("compiled, a chip", f"{e.compiled_flops:.4g}"))
    if e.eight_bit:
        as_planned = e.eight_bit_flops / e.chips
        found = as_planned if e.compiled_eight_bit_flops is None else e.compiled_eight_bit_flops
        how = "of the model" if e.compiled_eight_bit_flops is None else "compiled"
        rows.append((f"of these in {e.eight_bit}, {how}", f"{found:.4g}"))
    text = "FLOPs of a step\n" + table((), rows)
    if e.unknown_loops:
        text += f"\n{e.unknown_loops} loops were counted once: how often they turn is not in the program."
    return text


def _collectives(e: Estimate) -> str:
    if not e.sent:
        return "Nothing is sent between chips." if e.compiled_flops is not None else ""
    rows = [
        (
            s.kind,
            s.dtype,
            s.group,
            "in a loop" if s.loop else "once",
            "overlapped" if s.overlapped else "waited for",
            s.number,
            f"{s.bytes / 1e6:.3f}",
            f"{s.sent / 1e6:.3f}",
        )
        for s in e.sent
    ]
    head = ("kind", "type", "chips", "where", "how", "number", "MB", "MB sent by a chip")
    return "Between chips, in a step\n" + table(head, rows)


def _bounds(e: Estimate) -> str:
    if e.bound is None:
        return ""
    why = {
        "compute": "FLOPs at the chip's peak",
        "memory": f"{(e.traffic or 0) / 1e9:.2f} GB to and from the chip's memory (estimate)",
        "interconnect": "what a chip sends, over all its links",
    }
    rows = [(name, ms(seconds), why[name]) for name, seconds in e.bounds.items()]
    slowest = max(e.bounds, key=lambda name: e.bounds[name])
    lines = ["A step takes at least", table((), rows)]
    lines.append(f"so {slowest} bounds it, if everything overlaps: {ms(e.bound)}.")
    if e.as_compiled and e.as_compiled > e.bound:
        lines.append(f"As compiled, {ms(e.waited)} of the interconnect are waited for: {ms(e.as_compiled)}.")
    decoded, views = (n / e.bound / e.hosts for n in (e.batch_size, e.views))
    seen = f" (seen {e.repeats} times each)" if e.repeats > 1 else ""
    lines.append(
        f"To keep up, {'the host' if e.hosts == 1 else f'each of {e.hosts} hosts'} must deliver "
        f"{decoded:,.0f} examples a second{seen}, {views * e.input_bytes / 1e6:,.0f} MB/s."
    )
    return "\n".join(lines)


def _hours(e: Estimate) -> str:
    rows = [
        (s.label, ms(s.step), f"{s.mfu:.1%}", f"{s.hours:,.1f}", f"{s.chip_hours:,.0f}") for s in e.spans()
    ]
    if not rows:
        return ""
    head = ("", "step", "MFU", "hours", "chip-hours")
    return "The whole recipe, steps only\n" + table(head, rows)


def _plural(number: int, word: str, words: str = "") -> str:
    return f"{number} {word if number == 1 else words or word + 's'}"
