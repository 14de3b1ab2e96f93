"""A method is a row and, where it needs one, a loss of its own; nothing else knows methods by name."""

import ast
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from amd_jax.evals.evaluators import EVALUATORS
from amd_jax.methods import METHODS, Method
from amd_jax.steps.pretrain import Pretraining
from amd_jax.steps.tasks import TASKS
from amd_jax.train import loop, setup
from tests.runs import ROOT, metrics, tiny

SOURCES = sorted((ROOT / "amd_jax").rglob("*.py"))


class Whitened(Pretraining):
    """AMD's loss, and how far the predicted pixels are from having variance one."""

    def loss_fn(self, params: Any, teacher_params: Any, pixels: Any, masks: Any) -> Any:
        """The fused loss and one part more."""
        loss, parts = super().loss_fn(params, teacher_params, pixels, masks)
        spread = self.student_output(params, pixels, masks).pixels.var(axis=-1)
        parts["loss_spread"] = jnp.mean(jnp.square(1 - spread))
        return loss + 0.1 * parts["loss_spread"], parts


@pytest.mark.slow
def test_a_new_method_is_a_row_and_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which then trains, logs its parts, draws pictures, is probed and goes on from its checkpoint."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)
    monkeypatch.setitem(TASKS, "whiten", Whitened.from_config)
    row = Method("whiten", ("pictures", "probe"), teacher="features", sees_more=True, aligns_cls=True)
    monkeypatch.setitem(METHODS, "whitened", row)
    probing = {"probe__every_epochs": 1.0, "probe__examples": 200, "eval__batch_size": 500}
    config = tiny(method="whitened", steps=5, log__pictures_every=5, **probing)
    config.optim.warmup_steps = 0
    config.optim.warmup_epochs = 0.0
    loop.train(setup.prepare(config, str(tmp_path)))
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if "loss_spread" in line] == [1, 2, 3, 4, 5]
    assert {"loss_rec", "loss_direct", "loss_gen"} <= lines[0].keys()
    assert [line["step"] for line in lines if "knn_top1" in line] == [5]
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["step_00000005.png"]
    assert setup.prepare(config, str(tmp_path)).start_step == 5


def test_every_row_names_a_task_and_evaluations_that_exist() -> None:
    for name, method in METHODS.items():
        assert method.task in TASKS, name
        assert set(method.evaluators) <= EVALUATORS.keys(), name


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_no_other_file_compares_names_of_methods_or_asks_for_the_class_of_a_task(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            asked = ast.unparse(node.args[1])
            assert "Pretraining" not in asked, node.lineno
            assert "Finetuning" not in asked, node.lineno
        if isinstance(node, ast.Compare):
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            assert not any(side.endswith("config.method") for side in sides), node.lineno
