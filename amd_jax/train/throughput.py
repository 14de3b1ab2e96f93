"""How fast a run goes: the logging interval's clock and the progress line."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


class Clock:
    """Measures a logging interval from the host, without waiting for the device.

    Steps are dispatched ahead of the device, so a single step's time means nothing; over an interval
    that ends where the loop fetches metrics, the mean is right.
    """

    def __init__(
        self,
        batch_size: int,
        flops_per_step: float | None = None,
        peak: float | None = None,
        *,
        step: int = 0,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts the first interval at `step`.

        Args:
          batch_size: examples per step over all processes.
          flops_per_step: model FLOPs per step over all devices; None: unknown, no MFU.
          peak: FLOP/s of all devices together; None: unknown, no MFU.
          step: steps done so far.
          now: a monotonic clock, seconds.
        """
        self._batch_size = batch_size
        self._flops_per_step = flops_per_step
        self._peak = peak
        self._now = now
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts an interval at `step`, to leave out what came before, such as compilation; see `aside`."""
        self._step = step
        self._began = self._now()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the seconds inside as waiting for data."""
        began = self._now()
        try:
            yield
        finally:
            self._waited += self._now() - began

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the seconds inside out of the interval: what is not training, such as an evaluation."""
        began = self._now()
        try:
            yield
        finally:
            self._began += self._now() - began

    def interval(self, step: int) -> dict[str, float]:
        """Ends the interval at `step` and starts the next; empty when no step was made.

        Returns:
          examples_per_second, seconds_per_step, data_wait_seconds (in the whole interval) and, where
          FLOPs and peak are known, mfu (model FLOPs utilisation, a fraction).
        """
        steps = step - self._step
        seconds = max(self._now() - self._began, 1e-9)
        waited = self._waited
        self.restart(step)
        if steps <= 0:
            return {}
        scalars = {
            "examples_per_second": steps * self._batch_size / seconds,
            "seconds_per_step": seconds / steps,
            "data_wait_seconds": waited,
        }
        if self._flops_per_step and self._peak:
            scalars["mfu"] = steps * self._flops_per_step / seconds / self._peak
        return scalars


def number(value: Any) -> int | float:
    """A number, or an array of one element, as Python's own; ValueError for more than one element."""
    item = np.asarray(value).item()
    return int(item) if isinstance(item, int) else float(item)


def format_duration(seconds: float) -> str:
    """The two largest units: 45s, 2m10s, 1h02m, 3d04h; "?" for what is no duration."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02d}h"


def format_bytes(count: int) -> str:
    """In powers of 1000, as disks are sold: 512 B, 1.1 MB, 3.7 GB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


# How known scalars read in the progress line; others read "name value". The order is that of the line.
_SHOWN: dict[str, Callable[[float], str]] = {
    "loss": lambda x: f"loss {x:.4f}",
    "lr": lambda x: f"lr {x:.1e}",
    "grad_norm": lambda x: f"|g| {x:.3g}",
    "examples_per_second": lambda x: f"{x:.0f} ex/s" if x >= 10 else f"{x:.2g} ex/s",
    "data_wait_seconds": lambda x: f"data {x:.1f}s",
    "mfu": lambda x: f"mfu {100 * x:.0f}%",
}
_HIDDEN = ("seconds_per_step",)  # says the same as examples per second


def progress_line(step: int, total: int, scalars: Mapping[str, Any], eta: float | None = None) -> str:
    """One line for a terminal or a log file.

    Args:
      step: steps done.
      total: steps of the run.
      scalars: any; "loss_…" are shown as the parts of "loss", in parentheses.
      eta: seconds to the end; None: not shown.
    """
    width = max(6, len(str(total)))
    percent = 100 * step // max(total, 1)  # rounded down: 100 % is the end
    values = {name: number(value) for name, value in scalars.items() if name not in _HIDDEN}
    known = {name: show(values[name]) for name, show in _SHOWN.items() if name in values}
    parts = {name.removeprefix("loss_"): x for name, x in values.items() if name.startswith("loss_")}
    loss = known.pop("loss", "")
    if parts:
        loss += " (" + " ".join(f"{name} {x:.3g}" for name, x in parts.items()) + ")"
    # What is not known by name, such as an accuracy, stands between the loss and the speed.
    others = [
        f"{name} {x:.4g}" for name, x in values.items() if name not in _SHOWN and not name.startswith("loss_")
    ]
    end = "" if eta is None else f"eta {format_duration(eta)}"
    fields = [f"step {step:>{width}}/{total} {percent:>3}%", loss.strip(), *others, *known.values(), end]
    return "  ".join(field for field in fields if field)
