"""Test environment: eight CPU devices in one process, one compilation cache, hypothesis without deadlines."""

import os
import tempfile
from collections.abc import Iterator

from tests import QUICK

# Both must be set before jax is imported: eight devices on few cores need spare threads to meet (a
# collective deadlocks otherwise), and meshes are tested on forced host devices.
os.environ["NPROC"] = "32"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count=8 {QUICK}"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest
from absl import flags
from hypothesis import settings

from tests import gcs

# Runs of one device, which tests start as processes, compile the same small models; several CPU devices, as
# here, must not keep what they compile (see amd_jax/compilation_cache.py).
jax.config.update("jax_enable_compilation_cache", False)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"amd_jax_test_cache_{os.getuid()}")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("suite")

flags.FLAGS.mark_as_parsed()  # grain's workers ask for flags


@pytest.fixture(scope="session")
def storage() -> Iterator[gcs.Storage]:
    """An emulator of Google Cloud Storage, to which this process and those it starts go."""
    with gcs.running() as running:
        yield running


@pytest.fixture
def everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where this process has a compilation cache: no program is too small, nor of several CPU devices."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.fixture
def bucket(storage: gcs.Storage) -> str:
    """The URL of an empty bucket, as gs://bucket1."""
    return storage.new_bucket()
