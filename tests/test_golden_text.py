"""Every published config in words, so that a change of a recipe shows in a diff.

tests/golden_text/ has a file for each run of configs/: length, learning rates, what is not a default, and
each parameter with its shape, decay, sharding and, where layers differ, its factor on the rate. After a
wanted change

    UPDATE_GOLDEN=1 python -m pytest tests/test_golden_text.py

writes them anew, to be read in the diff.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from amd_jax import sharding
from amd_jax.compare import grid
from amd_jax.config import KEYS, default, flat
from amd_jax.planning import recipe
from amd_jax.steps.tasks import make_task
from amd_jax.train import optim
from amd_jax.trees import path_name
from tests.golden import check
from tests.test_config import RUNS, load

FOLDER = Path(__file__).parent / "golden_text"
DEFAULTS = "defaults.txt"
PLANS = [
    *(("compare_fashion", argument) for argument in ("", "tune")),
    *(("compare_saturation", argument) for argument in ("", "parts", "teachers", "kd", "wide", "tune")),
    *(("compare_videos", argument) for argument in ("", "tune")),
]
CASES = [(name, argument) for name, argument in [*RUNS, *PLANS] if argument != "smoke"]


def file_name(name: str, argument: str) -> str:
    """`dmae_vitb_in1k-mask95.txt` for configs/dmae_vitb_in1k.py:mask95."""
    return f"{name}-{argument}.txt" if argument else f"{name}.txt"


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """A line for each of `values` that is not the default."""
    return (f"{name} = {value!r}" for name, value in values.items() if value != defaults.get(name))


def size_of(config: ConfigDict, file: str = "") -> tuple[int, int]:
    """Examples and classes of the training set, of which the run may take a share."""
    whole = config.copy_and_resolve_references()
    whole.data.share = 1.0
    return recipe.size(whole, file, None, None)


def length(config: ConfigDict, file: str = "") -> str:
    """Batch, epochs, steps, and the learning rate at five of them."""
    per_epoch = size_of(config, file)[0] * config.data.share / config.batch_size
    total = config.steps or int(config.epochs * per_epoch)
    warmup = config.optim.warmup_steps or round(config.optim.warmup_epochs * per_epoch)
    rate = optim.schedule(config, total, per_epoch)
    rates = (f"{step}: {float(rate(step)):.7f}" for step in (0, warmup, total // 4, total // 2, total - 1))
    epochs = f"{total / per_epoch:.4g} epochs"
    return f"batch {config.batch_size}, {epochs}, {total} steps, learning rate at step {', '.join(rates)}"


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Cells in columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def parameters(config: ConfigDict, file: str = "") -> list[str]:
    """Path, shape, decay, mesh axes and factors on the learning rate of each parameter, a line each."""
    task = make_task(config, size_of(config, file)[1])
    params = jax.eval_shape(task.init, jax.random.key(0))
    decays = jax.tree.leaves(optim.decay_mask(params))
    factors = jax.tree.leaves(optim.layer_scales(params, config.optim.layer_decay))
    mesh = sharding.make_mesh(2, 2, 2)
    rows = []
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), decay, factor in zip(leaves, decays, factors, strict=True):
        name = path_name(path)
        spec = sharding.partition_spec(name, leaf.shape, mesh)
        shared = f"({', '.join(str(axis or '-') for axis in spec)})"
        rates = " ".join(f"{x:.6g}" for x in np.ravel(factor)) if config.optim.layer_decay != 1 else ""
        rows.append((name, str(leaf.shape), "decay" if decay else "no decay", shared, rates))
    return table(rows)


def of_run(config: ConfigDict, file: str) -> list[str]:
    """What the file of a run's config says."""
    head = "# parameter, shape, weight decay, mesh axis of each dimension (mesh 2 x 2 x 2)"
    factors = ", factor on the learning rate (of each block)" if config.optim.layer_decay != 1 else ""
    keys = changed(flat(config), flat(default()))
    return [
        length(config, file),
        "",
        "# keys that are not the default",
        *keys,
        "",
        head + factors,
        *parameters(config, file),
    ]


def of_plan(plan: ConfigDict) -> list[str]:
    """What the file of a comparison's plan says; the parameters are those of AMD's student."""
    cells = grid.cells(plan, Path("DIR"))
    seed = f"/seed{plan.seeds[0]}"
    runs = (
        (name, length(cell.config))
        for name, cell in cells.items()
        if cell.trained and (seed in name or "/seed" not in name)
    )
    base = {f"base.{name}": key.default for name, key in KEYS.items()}
    keys = changed(flat(plan), base)
    student = parameters(cells[f"amd{seed}"].config)
    return [*table(runs), "", "# the plan, without the defaults of its base", *keys, "", *student]


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_config_is_what_is_written_down(name: str, argument: str) -> None:
    config = load(name, argument)
    lines = of_plan(config) if (name, argument) in PLANS else of_run(config, name)
    check(FOLDER / file_name(name, argument), lines)


def test_defaults_are_what_is_written_down() -> None:
    check(FOLDER / DEFAULTS, changed(flat(default()), {}))


def test_every_file_is_that_of_a_config() -> None:
    expected = {DEFAULTS, *(file_name(*case) for case in CASES)}
    if os.environ.get("UPDATE_GOLDEN"):
        for path in FOLDER.iterdir():
            if path.name not in expected:
                path.unlink()
    assert {path.name for path in FOLDER.iterdir()} == expected
