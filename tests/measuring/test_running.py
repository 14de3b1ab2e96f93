"""The first step with and without what was compiled before."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from amd_jax.measuring import running


@pytest.mark.usefixtures("everything_is_kept")
def test_the_second_start_finds_what_the_first_one_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one finds nothing, not even what this process had compiled before."""
    hits: list[bool] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append("cache_hits" in event))
    found: list[int] = []

    class Stub:
        def __init__(self, *of: Any) -> None:
            jax.jit(lambda x: jnp.tanh(x @ x)).lower(jnp.eye(8)).compile()
            self.start = len(found)
            found.append(sum(hits))

    monkeypatch.setattr(running, "Running", Stub)
    Stub()
    hits.clear()
    found.clear()
    last, cold = running.cold_and_warm(None, 10, lambda what: None)  # type: ignore[arg-type]
    assert found[0] == 0 < found[1]
    assert (cold, last.start) == (0, 1)
