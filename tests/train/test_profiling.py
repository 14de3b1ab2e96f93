"""A trace has the steps that were asked for, and is where TensorBoard looks."""

from pathlib import Path

import jax
import pytest
from jax.profiler import ProfileData

from amd_jax.errors import ConfigError
from amd_jax.train import loop, profiling, setup
from amd_jax.train.validate import validate
from tests.runs import tiny


@pytest.mark.slow
def test_a_trace_has_the_steps_that_were_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)
    loop.train(setup.prepare(tiny(log__profile="3:4"), str(tmp_path)))
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    events = (e for p in ProfileData.from_file(str(trace)).planes for line in p.lines for e in line.events)
    steps = {dict(event.stats).get("step_num") for event in events if event.name == "train"}
    assert steps == {3, 4}


@pytest.mark.parametrize("text", ["3", "0:4", "5:4", "a:b"])
def test_what_is_no_range_of_steps_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give the first and the last step"):
        validate(tiny(log__profile=text))


def test_the_range_is_read_as_written() -> None:
    assert profiling.parse("11:15") == (11, 15)
