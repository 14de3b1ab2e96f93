"""What is asked of every recipe, and what the cells have answered so far: scores by seed, and their cost."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from amd_jax.compare import grid
from amd_jax.compare.cell import Result
from amd_jax.compare.grid import Recipe

Results = Mapping[str, Result]


class Column(NamedTuple):
    """A score: its title, and of a recipe and a seed the cell and the key of its result."""

    title: str
    where: Callable[[Recipe, int], tuple[str, str]]


class Cost(NamedTuple):
    """Of one pre-training, with those whose encoder it started from."""

    steps: int
    tflop: float  # the frozen teacher's part included
    seconds: float
    teachers_tflop: float  # the teacher's own training


def columns(labels: Sequence[float]) -> list[Column]:
    """Probe, kNN, and fine-tuning on each share of the labels."""

    def tuned(share: float) -> Callable[[Recipe, int], tuple[str, str]]:
        return lambda recipe, seed: (recipe.finetuned(seed, share), "eval_top1")

    return [
        Column("linear probe", lambda recipe, seed: (recipe.pretrained(seed), "probe_top1")),
        Column("kNN", lambda recipe, seed: (recipe.pretrained(seed), "knn_top1")),
        *(Column(f"fine-tuned, {100 * share:g} % of labels", tuned(share)) for share in labels),
    ]


def by_seed(plan: ConfigDict, recipe: Recipe, column: Column, results: Results) -> dict[int, float]:
    """The scores there are."""
    found = {seed: column.where(recipe, seed) for seed in plan.seeds}
    # A classifier that nothing pre-trained has no probe: its cell is scored by accuracy alone.
    return {seed: results[cell][key] for seed, (cell, key) in found.items() if key in results.get(cell, {})}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample's standard deviation, which is 0 for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def cost(plan: ConfigDict, recipe: Recipe, results: Results) -> Cost | None:
    """None where no seed has been trained."""
    found = [results[name] for seed in plan.seeds if (name := recipe.pretrained(seed)) in results]
    before = cost(plan, recipe.after, results) if recipe.after else Cost(0, 0.0, 0.0, 0.0)
    if not (found and before):
        return None
    seconds = float(np.median([result["seconds"] for result in found]))
    taught = recipe.needs_teacher and recipe.teacher in results
    teachers = results[recipe.teacher]["tflop"] if taught else 0.0
    return Cost(
        before.steps + found[0].get("steps", 0),
        before.tflop + found[0]["tflop"],
        before.seconds + seconds,
        max(before.teachers_tflop, teachers),  # both learned from the same one
    )


def teachers_scores(plan: ConfigDict, name: str, results: Results) -> list[float | None] | None:
    """A teacher's own scores, in the order of `columns`; None before it is trained."""
    if name not in results:
        return None
    tuned = [results.get(f"{name}/{grid.share_name(share)}") for share in plan.labels]
    frozen = [results[name]["probe_top1"], results[name]["knn_top1"]]
    return [*frozen, *(cell and cell["eval_top1"] for cell in tuned)]


def title(name: str) -> str:
    """What a part of a plan is called in tables and pictures."""
    return name.replace("_", " ")
