"""Signals: noted, agreed on by all processes, and noticed between two batches of an evaluation."""

import os
import signal
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from amd_jax.config import default
from amd_jax.data.sources import make_source
from amd_jax.evals import accuracy, features
from amd_jax.sharding import make_mesh
from amd_jax.signals import Interrupted, Signals
from tests.runs import tiny


def test_one_process_stops_once_it_is_told() -> None:
    with Signals().installed() as signals:
        assert not signals.asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked()
        assert signals.asked()
        assert signals.name == "SIGTERM"


def test_several_processes_count_their_questions_and_stop_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """jax picks one number that none has passed: it is reached once, so it has to be remembered."""
    asked: list[int] = []

    def reached(number: int) -> bool:
        asked.append(number)
        return number == 3

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    signals = Signals()
    assert [signals.asked() for _ in range(5)] == [False, False, True, True, True]
    assert asked == [1, 2, 3]
    assert signals.name == "a preemption notice"


def after(batches: int) -> Any:
    """Says stop at the question after so many batches."""
    answers = iter([False] * batches + [True])
    return lambda: next(answers)


def test_features_stop_within_a_batch() -> None:
    config = tiny(eval__batch_size=100)
    encoded: list[int] = []

    def encode(params: Any, batch: Any) -> Any:
        encoded.append(len(batch["label"]))
        return np.zeros((100, 2)), batch["label"], batch["mask"]

    mesh = make_mesh(devices=jax.devices()[:1])
    with pytest.raises(Interrupted):
        features.features(encode, {}, config, make_source(config.data, "eval"), mesh, after(3))
    assert encoded == [100] * 3  # of 20


def test_accuracy_stops_within_a_batch() -> None:
    class Constant:
        """Counts the batches that it is traced for or run on."""

        model = None

        def logits(self, model: None, params: Any, pixels: jax.Array) -> jax.Array:
            jax.debug.callback(lambda: seen.append(1))
            return jax.numpy.zeros((len(pixels), 10))

    seen: list[int] = []
    config = default()
    config.data.source, config.data.image_size, config.eval.batch_size = "embedded", 8, 100
    config.data.workers = 0
    mesh = make_mesh(devices=jax.devices()[:1])
    task: Any = Constant()
    evaluator = accuracy.make_scorer(config, task, make_source(config.data, "eval"), mesh)
    with pytest.raises(Interrupted):
        evaluator({}, after(3))
    jax.effects_barrier()
    assert len(seen) == 3  # of 20
    assert evaluator({})["eval_examples"] == 2000
