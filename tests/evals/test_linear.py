"""Linear probes: on data whose answer is known, and MAE's step by step against PyTorch."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from ml_collections import ConfigDict

from amd_jax.config import default
from amd_jax.evals import linear

WIDTH, CLASSES, BATCH = 6, 3, 16
RATES = np.float32([0, 1, 2, 3, 2.9, 2.7, 2.3, 1.8, 1.3, 0.8, 0.4, 0.1])


def blobs(n: int, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of Gaussian features, `gap` apart, on wildly different scales."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, n)
    x = generator.normal(size=(n, WIDTH)).astype(np.float32)
    x[np.arange(n), labels] += gap
    return x * np.float32([1, 100, 1e-2, 1, 1, 1]) + 5, labels


def options(**changes: Any) -> ConfigDict:
    """The `probe` section with changes."""
    section = default().probe
    section.update(changes)
    return section


OPTIMIZERS = [
    options(),
    # Trust ratios are made for large batches of large data: so few steps need a higher rate.
    options(optimizer="lars", base_lr=20.0, batch_size=100),
    options(optimizer="adamw", base_lr=0.05, batch_size=100),
]


@pytest.mark.parametrize("how", OPTIMIZERS, ids=lambda how: how.optimizer)
def test_separable_classes_are_found_and_noise_is_at_chance(how: ConfigDict) -> None:
    with jax.transfer_guard("disallow"):  # as in the training loop
        assert linear.linear_probe(blobs(500, 8, 0), blobs(500, 8, 1), CLASSES, how) > 98
        assert abs(linear.linear_probe(blobs(500, 0, 0), blobs(2000, 0, 1), CLASSES, how) - 100 / 3) < 6


def test_the_fit_is_where_the_gradient_vanishes() -> None:
    x, labels = blobs(200, 1, 0)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    w = linear.fit_to_convergence(x, labels, CLASSES)
    logits = x @ np.asarray(w["kernel"]) + np.asarray(w["bias"])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gradient = x.T @ (p - np.eye(CLASSES)[labels]) / len(x) + linear.WEIGHT_DECAY * np.asarray(w["kernel"])
    assert np.abs(gradient).max() < 1e-4


class TorchLars(torch.optim.Optimizer):
    """What util/lars.py of facebookresearch/mae says, without decay."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                scale = 0.001 * p.norm() / p.grad.norm() if p.ndim > 1 else 1.0
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.mul_(0.9).add_(scale * p.grad)
                p.sub_(group["lr"] * velocity)


@pytest.mark.parametrize(
    ("ours", "theirs", "rates"),
    [
        (linear.lars, TorchLars, RATES),
        (linear.adamw, lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0), 0.01 * RATES),
    ],
    ids=["lars", "adamw"],
)
def test_a_step_is_pytorchs(ours: Any, theirs: Any, rates: np.ndarray) -> None:
    """BatchNorm1d, linear layer and optimiser on the same batches, with a rate that changes."""
    solver = ours(lambda step: jax.numpy.asarray(rates)[step])
    head = linear.start(jax.random.key(0), WIDTH, CLASSES, solver)
    # LARS moves weights in proportion to their size: with these they move far beyond the tolerance.
    head = head._replace(w=head.w | {"kernel": 30 * head.w["kernel"]})
    step = jax.jit(linear.make_step(solver))

    norm, layer = torch.nn.BatchNorm1d(WIDTH, affine=False, eps=1e-6), torch.nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(head.w["kernel"]).T))
        layer.bias.zero_()
    first = head.w["kernel"]
    optimizer = theirs(layer.parameters(), lr=0.0)

    for number, rate in enumerate(rates):
        x, labels = blobs(BATCH, 1, number)
        x /= x.std(axis=0)  # on wild scales float32 alone makes a difference
        head = step(head, x, labels)
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            layer(norm(torch.from_numpy(x))), torch.from_numpy(labels)
        ).backward()
        optimizer.step()

    same = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(head.mean, norm.running_mean, **same)
    np.testing.assert_allclose(head.var, norm.running_var, **same)
    np.testing.assert_allclose(head.w["kernel"], layer.weight.detach().numpy().T, **same)
    np.testing.assert_allclose(head.w["bias"], layer.bias.detach().numpy(), **same)
    assert np.abs(head.w["kernel"] - first).max() > 0.01
    assert np.abs(head.w["bias"]).max() > 0.01


def test_a_fit_is_the_steps_of_its_epochs() -> None:
    """One batch of all features an epoch: their order does not matter, so that the steps can be repeated."""
    x, labels = blobs(64, 1, 0)
    recipe = linear.Recipe("adamw", epochs=4, batch_size=1000, base_lr=0.1, warmup_epochs=2)
    rates = np.float32([0, 0.5, 1, 0.5]) * 0.1 * 64 / 256
    solver = linear.adamw(lambda step: jax.numpy.asarray(rates)[step])
    key = jax.random.split(jax.random.key(0), 5)[0]
    head = linear.start(key, WIDTH, CLASSES, solver)
    for _ in rates:
        head = linear.make_step(solver)(head, x, labels)
    fitted = linear.fit_by_epochs(x, labels, CLASSES, recipe)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), fitted[:3], head[:3])


def test_every_batch_of_an_epoch_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that count the rows show which ones a step was given."""
    seen = []

    def make_step(solver: optax.GradientTransformation) -> Any:
        def step(head: linear.Head, x: jax.Array, labels: jax.Array) -> linear.Head:
            jax.debug.callback(lambda rows: seen.append(tuple(rows.tolist())), labels)
            return head

        return step

    monkeypatch.setattr(linear, "make_step", make_step)
    recipe = linear.Recipe("lars", epochs=3, batch_size=4, base_lr=0.1, warmup_epochs=1)
    linear.fit_by_epochs.__wrapped__(jax.numpy.zeros((10, 2)), jax.numpy.arange(10), 10, recipe)
    jax.effects_barrier()
    assert len(seen) == 3 * 2  # two rows of ten fill no batch of four
    assert all(len({*a, *b}) == 8 for a, b in zip(seen[::2], seen[1::2], strict=True))
    assert len({tuple(sorted(rows)) for rows in seen}) > 3
