"""The interval clock and the progress line."""

import contextlib

import numpy as np
import pytest

from amd_jax.train import throughput


class _Time:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_clock() -> None:
    now = _Time()
    clock = throughput.Clock(256, flops_per_step=3e12, peak=10e12, step=40, now=now)
    with clock.waiting():
        now.seconds += 0.5
    now.seconds += 3.5
    with contextlib.suppress(StopIteration), clock.waiting():  # finding the data's end is waiting too
        now.seconds += 1
        raise StopIteration
    assert clock.interval(50) == pytest.approx(
        {"examples_per_second": 512, "seconds_per_step": 0.5, "data_wait_seconds": 1.5, "mfu": 0.6}
    )
    now.seconds += 1
    assert clock.interval(51)["data_wait_seconds"] == 0
    now.seconds += 1000
    clock.restart(51)  # an evaluation is nobody's throughput
    now.seconds += 2
    assert clock.interval(52)["seconds_per_step"] == pytest.approx(2)
    assert clock.interval(52) == {}
    assert clock.interval(53)["examples_per_second"] > 0  # no time passed: no division by zero


@pytest.mark.parametrize(("flops", "peak"), [(None, 1e12), (1e12, None), (None, None)])
def test_no_mfu_without_flops_and_peak(flops: float | None, peak: float | None) -> None:
    now = _Time()
    clock = throughput.Clock(8, flops, peak, now=now)
    now.seconds += 1
    assert set(clock.interval(1)) == {"examples_per_second", "seconds_per_step", "data_wait_seconds"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (130, "2m10s"),
        (3599.9, "1h00m"),
        (3720, "1h02m"),
        (86399, "1d00h"),
        (76 * 3600, "3d04h"),
        (-1, "?"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert throughput.format_duration(seconds) == text


def test_progress_line() -> None:
    scalars = {
        "data_wait_seconds": 0.12,
        "lr": 1.2e-3,
        "loss": np.float32(0.43118),
        "loss_rec": 0.31,
        "loss_direct": 0.08,
        "loss_gen": 0.04,
        "accuracy": 0.8125,
        "grad_norm": 0.8301,
        "examples_per_second": 1830.2,
        "seconds_per_step": 0.14,
        "mfu": 0.412,
    }
    assert throughput.progress_line(1200, 4500, scalars, eta=130.0) == (
        "step   1200/4500  26%  loss 0.4312 (rec 0.31 direct 0.08 gen 0.04)  accuracy 0.8125  "
        "lr 1.2e-03  |g| 0.83  1830 ex/s  data 0.1s  mfu 41%  eta 2m10s"
    )
    assert throughput.progress_line(10, 10, {"loss": float("nan")}) == "step     10/10 100%  loss nan"
    assert throughput.progress_line(4499, 4500, {}) == "step   4499/4500  99%"


def test_what_is_set_aside_is_not_training_time() -> None:
    now = _Time()
    clock = throughput.Clock(8, now=now)
    now.seconds += 2
    with clock.aside():
        now.seconds += 100
    assert clock.interval(4)["seconds_per_step"] == 0.5
