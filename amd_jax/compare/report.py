"""The results of a comparison as Markdown tables and as a plot."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amd_jax.compare import grid
from amd_jax.compare.cell import Result
from amd_jax.compare.grid import Recipe
from amd_jax.errors import ConfigError

Results = Mapping[str, Result]
Column = tuple[str, Callable[[Recipe, int], tuple[str, str]]]  # title; recipe, seed → cell, score


def write(plan: ConfigDict, results: Results, workdir: Path) -> None:
    """`results.md` with every table, as far as there are results."""
    parts = [_setting(results), "## Methods\n\n" + _methods(plan, results)]
    parts.append("## Differences\n\n" + _differences(plan, results))
    for question, variants in grid.ablations(plan).items():
        labels = grid.ablation_labels(plan, question)
        parts.append(f"## {_title(question)}\n\n" + _ablation(plan, variants, labels, results))
    temporary = workdir / "results.tmp"
    temporary.write_text("\n\n".join(parts) + "\n")
    os.replace(temporary, workdir / "results.md")


def check_plotting() -> None:
    """Raises ConfigError where matplotlib is missing: before the runs, not after them."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("the plot needs matplotlib: pip install -r requirements-compare.txt") from error


def plot(plan: ConfigDict, results: Results, workdir: Path) -> None:
    """`results.png`: each score of each method, a dot for each seed, mean and standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, methods = _columns(plan.labels), grid.methods(plan)
    figure = Figure(figsize=(3 * len(columns), 1 + 0.4 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        for row, recipe in enumerate(methods.values()):
            values = _scores(plan, recipe, column, results)
            if not values:
                continue
            axis.plot(values, [row] * len(values), "o", color="0.7", markersize=4)
            spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
            axis.errorbar(np.mean(values), row, xerr=spread, fmt="|", color="C0", markersize=12, capsize=3)
        axis.set_title(column[0], fontsize=9)
        axis.set_xlabel("top-1 %", fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(methods)), methods)
    axes[0].invert_yaxis()
    temporary = workdir / "results_being_drawn.png"
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, workdir / "results.png")


def line(name: str, result: Result) -> str:
    """One cell in a few words."""
    scores = {"probe_top1": "probe", "knn_top1": "kNN", "eval_top1": "accuracy"}
    return f"{name}: " + ", ".join(
        f"{word} {result[key]:.2f}" for key, word in scores.items() if key in result
    )


def _columns(labels: Sequence[float]) -> list[Column]:
    def tuned(share: float) -> Callable[[Recipe, int], tuple[str, str]]:
        return lambda recipe, seed: (recipe.finetuned(seed, share), "eval_top1")

    return [
        ("linear probe", lambda recipe, seed: (recipe.pretrained(seed), "probe_top1")),
        ("kNN", lambda recipe, seed: (recipe.pretrained(seed), "knn_top1")),
        *((f"fine-tuned, {100 * share:g} % of labels", tuned(share)) for share in labels),
    ]


def _by_seed(plan: ConfigDict, recipe: Recipe, column: Column, results: Results) -> dict[int, float]:
    found = {seed: column[1](recipe, seed) for seed in plan.seeds}
    return {seed: results[cell][score] for seed, (cell, score) in found.items() if cell in results}


def _scores(plan: ConfigDict, recipe: Recipe, column: Column, results: Results) -> list[float]:
    return list(_by_seed(plan, recipe, column, results).values())


def _methods(plan: ConfigDict, results: Results) -> str:
    columns = _columns(plan.labels)
    rows = [_row(plan, name, recipe, columns, results) for name, recipe in grid.methods(plan).items()]
    teacher = results.get(grid.TEACHER)
    if teacher:
        tuned = [results.get(f"{grid.TEACHER}/{grid.share_name(share)}") for share in plan.labels]
        scores = [teacher["probe_top1"], teacher["knn_top1"], *(t and t["eval_top1"] for t in tuned)]
        numbers = ["–" if score is None else f"{score:.2f}" for score in scores]
        rows.append(["*teacher*", *numbers, f"{teacher['tflop']:.2f}", f"{teacher['seconds']:.0f}"])
    head = ["method", *(title for title, _ in columns), "TFLOP", "seconds"]
    note = (
        f"\n\nTop-1 %, mean ± standard deviation over {len(plan.seeds)} seeds. TFLOP and seconds, here and "
        "below: one pre-training, the frozen teacher's part included and its own training not; fine-tuning "
        "is not counted."
    )
    if any(recipe.needs_labels for recipe in grid.methods(plan).values()):
        note += (
            " kd is a classifier before it is fine-tuned: its encoder learned from a teacher's labels, and "
            "it keeps its head."
        )
    return _table(head, rows) + note


def _differences(plan: ConfigDict, results: Results) -> str:
    """AMD minus each other method, seed by seed: initial weights and data order are shared."""
    columns, recipes = _columns(plan.labels), grid.methods(plan)
    rows = []
    for method, recipe in recipes.items():
        if method == "amd" or "amd" not in recipes:
            continue
        row = [f"amd − {method}"]
        for column in columns:
            ours, theirs = (_by_seed(plan, r, column, results) for r in (recipes["amd"], recipe))
            row.append(_spread(plan, [ours[s] - theirs[s] for s in ours.keys() & theirs.keys()], sign="+"))
        rows.append(row)
    return _table(["", *(title for title, _ in columns)], rows) + (
        "\n\nPoints of top-1, mean ± standard deviation of the differences seed by seed."
    )


def _ablation(
    plan: ConfigDict, variants: Mapping[str, Recipe], labels: Sequence[float], results: Results
) -> str:
    columns = _columns(labels)
    rows = []
    for variant, recipe in variants.items():
        same = recipe.name in plan.methods and recipe.name != variant
        label = f"{_title(variant)} ({recipe.name})" if same else _title(variant)
        rows.append(_row(plan, label, recipe, columns, results))
    return _table(["", *(title for title, _ in columns), "TFLOP", "seconds"], rows)


def _row(
    plan: ConfigDict, label: str, recipe: Recipe, columns: Sequence[Column], results: Results
) -> list[str]:
    scores = [_spread(plan, _scores(plan, recipe, column, results)) for column in columns]
    return [label, *scores, *_cost(plan, recipe, results)]


def _cost(plan: ConfigDict, recipe: Recipe, results: Results) -> list[str]:
    """TFLOP and seconds of one pre-training."""
    cells = [results.get(recipe.pretrained(seed)) for seed in plan.seeds]
    known = [cell for cell in cells if cell]
    if not known:
        return ["–", "–"]
    return [f"{known[0]['tflop']:.2f}", f"{np.median([cell['seconds'] for cell in known]):.0f}"]


def _spread(plan: ConfigDict, values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "–"
    text = f"{np.mean(values):{sign}.2f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.2f}"
    missing = len(plan.seeds) - len(values)
    return text + (f" ({len(values)} of {len(plan.seeds)} seeds)" if missing else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _setting(results: Results) -> str:
    """Where and with what this was computed; several lines where that changed on the way."""
    return "\n".join(f"- {setting}" for setting in sorted({result["setting"] for result in results.values()}))
