"""Times over many windows: their middle and their spread, of one program or of two that take turns."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

WINDOWS = 20  # at most
SECONDS = 10.0  # that the steps of a program are timed for, where nobody says how many
FEWEST = 10  # steps
Window = Callable[[int], float]  # from a number of steps to their seconds


@dataclasses.dataclass(frozen=True)
class Spread:
    """What many windows say: the median, quartiles, the extremes, and how many there were."""

    median: float
    quarter: float
    three_quarters: float
    least: float
    most: float
    windows: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        least, quarter, median, three, most = (float(q) for q in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
        return cls(median, quarter, three, least, most, len(values))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How many windows of how many steps."""

    windows: int
    size: int

    @classmethod
    def of(cls, steps: int, one: float) -> "Schedule":
        """Of about `steps` steps; 0: as many as fill SECONDS where one takes `one` seconds."""
        steps = steps or max(FEWEST, round(SECONDS / max(one, 1e-6)))
        windows = min(WINDOWS, steps)
        return cls(windows, steps // windows)


def timed(window: Window, schedule: Schedule) -> Spread:
    """Seconds of a step of one program."""
    return Spread.of([window(schedule.size) / schedule.size for _ in range(schedule.windows)])


def in_turn(one: Window, other: Window, schedule: Schedule) -> tuple[Spread, Spread, Spread]:
    """Seconds of a step of each of two programs, and the other's over the one's, by pairs of windows.

    They change places in every pair, so that a machine that gets faster or slower favours neither.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(schedule.windows):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            seconds[which].append((one, other)[which](schedule.size) / schedule.size)
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    return Spread.of(seconds[0]), Spread.of(seconds[1]), Spread.of(ratios)
