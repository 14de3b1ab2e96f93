"""The linear probe on data whose answer is known."""

from pathlib import Path

import jax
import numpy as np
import pytest

from amd_jax import loop, probe, setup
from tests.runs import tiny


def blobs(n: int, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of Gaussian features, `gap` apart, on wildly different scales."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    x = generator.normal(size=(n, 6)).astype(np.float32)
    x[np.arange(n), labels] += gap
    return x * np.float32([1, 100, 1e-2, 1, 1, 1]) + 5, labels


def test_separable_classes_are_found_and_noise_is_at_chance() -> None:
    assert probe.linear_probe(blobs(500, 8, 0), blobs(500, 8, 1), 3) > 98
    assert abs(probe.linear_probe(blobs(500, 0, 0), blobs(2000, 0, 1), 3) - 100 / 3) < 6


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    x, labels = blobs(200, 1, 0)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    w = probe.fit_linear(x, labels, 3)
    logits = x @ np.asarray(w["kernel"]) + np.asarray(w["bias"])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gradient = x.T @ (p - np.eye(3)[labels]) / len(x) + probe.WEIGHT_DECAY * np.asarray(w["kernel"])
    assert np.abs(gradient).max() < 1e-4


@pytest.mark.slow
def test_a_run_is_probed_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *args: devices[:1])
        loop.train(setup.prepare(tiny(), str(tmp_path / "run")))
    assert probe.main([str(tmp_path / "run"), "--untrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: float(line.split()[1]) for line in lines if len(line.split()) == 2}
    assert rows.keys() == {"untrained", "run"}
    assert min(rows.values()) > 30  # ten classes; a random projection of clothes is far above chance


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error:")
