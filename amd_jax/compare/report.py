"""The results of a comparison as Markdown tables, and as they are."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from amd_jax.compare import grid
from amd_jax.compare.cell import Result
from amd_jax.compare.grid import Recipe
from amd_jax.compare.scores import (
    Column,
    Results,
    by_seed,
    columns,
    cost,
    mean_and_spread,
    teachers_scores,
    title,
)
from amd_jax.workdir import write_json


def write(plan: ConfigDict, results: Results, workdir: Path) -> None:
    """`results.md` with every table, as far as there are results, and `results.json` with every cell's."""
    parts = [_setting(results), "## Methods\n\n" + _methods(plan, results)]
    parts.append("## Differences\n\n" + _differences(plan, results))
    for question, variants in grid.ablations(plan).items():
        labels = grid.ablation_labels(plan, question)
        parts.append(f"## {title(question)}\n\n" + _ablation(plan, variants, labels, results))
    temporary = workdir / "results.tmp"
    temporary.write_text("\n\n".join(parts) + "\n")
    os.replace(temporary, workdir / "results.md")
    write_json(workdir / "results.json", dict(results))


def line(name: str, result: Result) -> str:
    """One cell in a few words."""
    scores = {"probe_top1": "probe", "knn_top1": "kNN", "eval_top1": "accuracy"}
    return f"{name}: " + ", ".join(
        f"{word} {result[key]:.2f}" for key, word in scores.items() if key in result
    )


def _methods(plan: ConfigDict, results: Results) -> str:
    asked = columns(plan.labels)
    rows = [_row(plan, name, recipe, asked, results) for name, recipe in grid.methods(plan).items()]
    for name in ("", *plan.get("teachers", {})):
        cell = grid.teachers_cell(name)
        if (scores := teachers_scores(plan, cell, results)) is not None:
            numbers = ["–" if score is None else f"{score:.2f}" for score in scores]
            costs = [f"{results[cell]['tflop']:.2f}", f"{results[cell]['seconds']:.0f}"]
            rows.append([f"*{title(cell)}*", *numbers, *costs])
    head = ["method", *(column.title for column in asked), "TFLOP", "seconds"]
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
    asked, recipes = columns(plan.labels), grid.methods(plan)
    rows = []
    for method, recipe in recipes.items():
        if method == "amd" or "amd" not in recipes:
            continue
        row = [f"amd − {method}"]
        for column in asked:
            ours, theirs = (by_seed(plan, r, column, results) for r in (recipes["amd"], recipe))
            row.append(_spread(plan, [ours[s] - theirs[s] for s in ours.keys() & theirs.keys()], sign="+"))
        rows.append(row)
    return _table(["", *(column.title for column in asked)], rows) + (
        "\n\nPoints of top-1, mean ± standard deviation of the differences seed by seed."
    )


def _ablation(
    plan: ConfigDict, variants: Mapping[str, Recipe], labels: Sequence[float], results: Results
) -> str:
    asked = columns(labels)
    rows = []
    for variant, recipe in variants.items():
        same = recipe.name in plan.methods and recipe.name != variant
        label = f"{title(variant)} ({recipe.name})" if same else title(variant)
        rows.append(_row(plan, label, recipe, asked, results))
    return _table(["", *(column.title for column in asked), "TFLOP", "seconds"], rows)


def _row(
    plan: ConfigDict, label: str, recipe: Recipe, asked: Sequence[Column], results: Results
) -> list[str]:
    scores = [_spread(plan, list(by_seed(plan, recipe, column, results).values())) for column in asked]
    spent = cost(plan, recipe, results)
    return [label, *scores, *([f"{spent.tflop:.2f}", f"{spent.seconds:.0f}"] if spent else ["–", "–"])]


def _spread(plan: ConfigDict, values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "–"
    mean, spread = mean_and_spread(values)
    text = f"{mean:{sign}.2f}" + (f" ± {spread:.2f}" if len(values) > 1 else "")
    missing = len(plan.seeds) - len(values)
    return text + (f" ({len(values)} of {len(plan.seeds)} seeds)" if missing else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _setting(results: Results) -> str:
    """Where and with what this was computed; several lines where that changed on the way."""
    return "\n".join(f"- {setting}" for setting in sorted({result["setting"] for result in results.values()}))
