"""Memory is compared before the first step; what does not fit is one line with the keys to change."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from amd_jax import sharding
from amd_jax.config import default
from amd_jax.errors import ConfigError
from amd_jax.train import preflight, setup
from tests.runs import tiny


def test_more_than_there_is_names_both_and_the_keys_to_change() -> None:
    config = default()
    preflight.check_memory("a step", 5, 5, config)
    preflight.check_memory("a step", None, 5, config)
    preflight.check_memory("a step", 5, None, config)
    with pytest.raises(ConfigError, match=r"a step needs 3\.00 GiB a device, which has 2\.00") as caught:
        preflight.check_memory("a step", 3 * 2**30, 2 * 2**30, config)
    for name in ("accum_steps", "model.remat", "mesh.fsdp", "batch_size"):
        assert name in str(caught.value)
    config.model.remat = True
    with pytest.raises(ConfigError) as caught:
        preflight.check_memory("a step", 3 * 2**30, 2 * 2**30, config)
    assert "remat" not in str(caught.value)


def test_cpu_devices_share_what_is_free_and_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "MEMINFO": "MemTotal: 9 kB\nMemAvailable: 800 kB\n",
        "STATM": "9 2 1",
        "CGROUP": "max",
    }.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(preflight, name, tmp_path / name)
    monkeypatch.setattr(preflight.os, "sysconf", lambda name: 4096)
    meshes = [sharding.make_mesh(devices=jax.devices()[:n]) for n in (1, 8)]
    assert [preflight.device_memory(mesh) for mesh in meshes] == [800 * 1024 + 8192, 100 * 1024 + 1024]
    (tmp_path / "CGROUP").write_text("8000")
    assert preflight.device_memory(meshes[1]) == 1000
    (tmp_path / "MEMINFO").unlink()
    assert preflight.device_memory(meshes[0]) is None


def test_a_program_and_a_tree_are_measured_by_device() -> None:
    mesh = sharding.make_mesh(fsdp=8, data=1)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    x = jax.ShapeDtypeStruct((8, 1024), "float32", sharding=where)
    assert preflight.tree_memory({"x": x}) == 4096
    compiled = jax.jit(lambda x: x + jnp.float32(1)).lower(x).compile()
    assert preflight.step_memory(compiled, "cpu") >= 8192  # argument and result


def test_the_compilers_peak_is_taken_where_it_counts_temporaries() -> None:
    """A TPU's does. If a CPU's ever does, this test fails, and the special case can go."""
    sizes = {"argument_size_in_bytes": 5, "output_size_in_bytes": 3, "alias_size_in_bytes": 1}
    memory = SimpleNamespace(**sizes, temp_size_in_bytes=8, peak_memory_in_bytes=11)
    compiled = SimpleNamespace(memory_analysis=lambda: memory)
    assert [preflight.step_memory(compiled, platform) for platform in ("tpu", "cpu")] == [11, 15]
    memory.peak_memory_in_bytes = 0
    assert preflight.step_memory(compiled, "tpu") == 15

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(4):
            x = jnp.tanh(x @ w)
        return x.sum()

    real = jax.jit(jax.grad(loss)).lower(jnp.ones((8, 8)), jnp.ones((4096, 8))).compile()
    layers = 4 * 4096 * 8 * 4
    assert preflight.step_memory(real, "cpu") > layers > real.memory_analysis().peak_memory_in_bytes


@pytest.mark.parametrize(("limit", "what"), [(1000, "the state alone needs"), (1_500_000, "a step needs")])
def test_a_run_that_does_not_fit_leaves_no_workdir(
    limit: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: device)
    monkeypatch.setattr(preflight, "device_memory", lambda mesh: limit)
    with pytest.raises(ConfigError, match=what):
        setup.prepare(tiny(), str(tmp_path / "W"))
    assert not (tmp_path / "W").exists()
