"""The results of a comparison as pictures."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from ml_collections import ConfigDict

from amd_jax.compare import grid
from amd_jax.compare.grid import Recipe
from amd_jax.compare.scores import Column, Cost, Results, by_seed, columns, cost, mean_and_spread, title


def scores_by_method(plan: ConfigDict, results: Results, workdir: Path) -> None:
    """`results.png`: each score of each method, a dot for each seed, mean and standard deviation."""
    asked, methods = columns(plan.labels), grid.methods(plan)
    figure = Figure(figsize=(3 * len(asked), 1 + 0.4 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(asked), sharey=True, squeeze=False)[0]
    for axis, column in zip(axes, asked, strict=True):
        for row, recipe in enumerate(methods.values()):
            values = list(by_seed(plan, recipe, column, results).values())
            if not values:
                continue
            axis.plot(values, [row] * len(values), "o", color="0.7", markersize=4)
            mean, spread = mean_and_spread(values)
            axis.errorbar(mean, row, xerr=spread, fmt="|", color="C0", markersize=12, capsize=3)
        axis.set_title(column.title, fontsize=9)
        axis.set_xlabel("top-1 %", fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    _save(figure, workdir / "results.png")


# What a score is drawn against: a title and what of the cost.
AGAINST: tuple[tuple[str, Callable[[Cost], float]], ...] = (
    ("steps", lambda spent: spent.steps),
    ("TFLOP", lambda spent: spent.tflop),
    ("TFLOP, teacher's training included", lambda spent: spent.tflop + spent.teachers_tflop),
)


def curves(plan: ConfigDict, results: Results, workdir: Path) -> None:
    """`NAME.png` for each of the plan's curves: scores against their cost, mean and standard deviation."""
    known = grid.ablations(plan)
    for name, lines in plan.get("curves", {}).items():
        asked = _asked(plan, lines.values())
        figure, axes = _panels(len(AGAINST), len(asked), 2.6, sharey="col")
        for (against, spent_on), row in zip(AGAINST, axes, strict=True):
            for axis, column in zip(row, asked, strict=True):
                for color, (label, question) in enumerate(lines.items()):
                    points = _points(plan, known[question].values(), column, spent_on, results)
                    _line(axis, points, label, color)
                _logarithmic(axis)
                axis.set_xlabel(against, fontsize=8)
        for axis, column in zip(axes[0], asked, strict=True):
            axis.set_title(column.title, fontsize=9)
        _legend(axes[0, 0])
        _save(figure, workdir / f"{name}.png")


def scatters(plan: ConfigDict, results: Results, workdir: Path) -> None:
    """`NAME.png` for each of the plan's scatters: every variant of its questions, scores against TFLOP.

    Variants that take as much as each other stand side by side instead.
    """
    known = grid.ablations(plan)
    for name, questions in plan.get("scatters", {}).items():
        asked = _asked(plan, questions)
        figure, axes = _panels(len(questions), len(asked), 2.3)
        for question, row in zip(questions, axes, strict=True):
            for axis, column in zip(row, asked, strict=True):
                _scatter(axis, plan, known[question], column, results)
                axis.set_title(f"{title(question)}: {column.title}", fontsize=8)
            _legend(row[0])
        _save(figure, workdir / f"{name}.png")


def _scatter(
    axis: Any, plan: ConfigDict, recipes: dict[str, Recipe], column: Column, results: Results
) -> None:
    """A colour for each variant, in all panels the same, whichever are scored."""
    points = [
        (color, title(variant), *point)
        for color, (variant, recipe) in enumerate(recipes.items())
        for point in _points(plan, [recipe], column, lambda spent: spent.tflop, results)
    ]
    costs = [spent for _, _, spent, _, _ in points]
    equal = bool(costs) and max(costs) < 1.02 * min(costs)
    for place, (color, label, spent, mean, spread) in enumerate(points):
        _line(axis, [(place if equal else spent, mean, spread)], None if equal else label, color)
    if equal:
        axis.set_xticks(range(len(points)), [fill(label, 12) for _, label, *_ in points], fontsize=7)
        axis.set_xlim(-0.5, len(points) - 0.5)
        axis.set_xlabel(f"{max(costs):.3g} TFLOP each", fontsize=8)
    else:
        axis.axvline(0, color="0.8")  # in sight, so that nearly equal costs look so
        axis.set_xlabel("TFLOP", fontsize=8)


def _asked(plan: ConfigDict, questions: Iterable[str]) -> list[Column]:
    """Every score that one of these questions has."""
    labels = {share for question in questions for share in grid.ablation_labels(plan, question)}
    return columns([share for share in plan.labels if share in labels])


def _panels(rows: int, across: int, height: float, **shared: Any) -> tuple[Figure, Any]:
    """A figure and its axes, `[rows, across]`, each `height` inches high."""
    figure = Figure(figsize=(3.2 * across, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, across, squeeze=False, **shared)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, axes


def _logarithmic(axis: Any) -> None:
    """Costs of less than a decade would have numbers over numbers on a logarithmic axis of matplotlib's."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _line(axis: Any, points: Sequence[tuple[float, float, float]], label: str | None, color: int) -> None:
    if points:
        x, mean, spread = zip(*points, strict=True)
        axis.errorbar(x, mean, yerr=spread, label=label, color=f"C{color}", marker="o", capsize=3)


def _legend(axis: Any) -> None:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8)


def _points(
    plan: ConfigDict,
    recipes: Iterable[Recipe],
    column: Column,
    spent_on: Callable[[Cost], float],
    results: Results,
) -> list[tuple[float, float, float]]:
    """Cost, mean and standard deviation over seeds of every recipe that has been scored."""
    points = []
    for recipe in recipes:
        spent, values = cost(plan, recipe, results), list(by_seed(plan, recipe, column, results).values())
        if spent and values:
            points.append((spent_on(spent), *mean_and_spread(values)))
    return sorted(points)


def _save(figure: Figure, path: Path) -> None:
    temporary = path.with_stem(f"{path.stem}_being_drawn")
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, path)
