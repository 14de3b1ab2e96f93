"""What is compiled is kept between starts, unless the user or the disk says no."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amd_jax import compilation_cache
from tests.runs import ROOT, assert_same

# A process that compiles two programs; prints how many jax found kept.
PROGRAM = """
import jax, jax.numpy as jnp
from amd_jax import compilation_cache
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append("cache_hits" in event))
compilation_cache.enable()
one, other = jax.jit(lambda x: jnp.tanh(x @ x)), jax.jit(jnp.linalg.norm)
other(one(jnp.eye(8))).block_until_ready()
print(sum(hits), jax.config.jax_compilation_cache_dir, jax.config.jax_compilation_cache_max_size)
"""


def started(**environment: str) -> subprocess.Popen[str]:
    """A process on its own, without the cache of the tests."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    mine |= {"XLA_FLAGS": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    command = [sys.executable, "-c", PROGRAM]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=mine, text=True, **pipes)  # type: ignore[call-overload]


def said(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """What it printed, and its standard error."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.split(), err


def test_the_second_start_compiles_nothing_and_says_nothing(tmp_path: Path) -> None:
    """Two that start together do not disturb each other, and what was left half is written again."""
    place = tmp_path / "amd_jax" / "xla"
    place.mkdir(parents=True)
    together = [started(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    for process in together:
        out, err = said(process)
        assert out[1:] == [str(place), str(compilation_cache.MAX_BYTES)]
        assert err == ""
    (kept,) = place.glob("jit__lambda*-cache")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])  # as a process leaves it that is killed
    kept.with_name(kept.name.removesuffix("-cache") + "-atime").unlink()
    out, err = said(started(XDG_CACHE_HOME=str(tmp_path)))
    assert int(out[0]) > 0  # the other
    assert err == ""
    assert len(kept.read_bytes()) > 100


@pytest.mark.parametrize(
    ("environment", "where", "words"),
    [
        ({"XDG_CACHE_HOME": "/proc/none"}, "None", "cannot be used"),
        ({"JAX_ENABLE_COMPILATION_CACHE": "false"}, "None", ""),
        ({"JAX_COMPILATION_CACHE_DIR": "/proc/none"}, "/proc/none", "No such file"),
    ],
)
def test_what_the_user_or_the_disk_does_not_want_stops_nothing(
    environment: dict[str, str], where: str, words: str
) -> None:
    out, err = said(started(**environment))
    assert out == ["0", where, "-1"]
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("named_by", ["XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_several_cpu_devices_keep_nothing(tmp_path: Path, named_by: str) -> None:
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", named_by: str(tmp_path)}
    for _ in range(2):
        assert said(started(**two))[0][0] == "0"
    assert not list(tmp_path.rglob("*-cache"))


@pytest.mark.usefixtures("everything_is_kept")
def test_a_kept_program_computes_the_same_bits(tmp_path: Path) -> None:
    """And `elsewhere` begins with nothing and leaves no trace."""
    hits: list[bool] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append("cache_hits" in event))
    before = jax.config.jax_compilation_cache_dir
    x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

    def loss(w: jax.Array) -> jax.Array:
        turn = lambda y, _: (jnp.tanh(y @ w) / 8, None)  # noqa: E731
        return jax.nn.logsumexp(jax.lax.scan(turn, x, length=5)[0])

    found = []
    for _ in range(2):
        assert not any(hits)
        with compilation_cache.elsewhere(tmp_path):
            found.append(jax.device_get(jax.jit(jax.value_and_grad(loss))(x)))
    assert any(hits)
    assert_same(*found)
    assert jax.config.jax_compilation_cache_dir == before
