"""XLA and libtpu know every flag that the launchers give them: both end a program at one they do not know."""

import os
import subprocess
import sys

import pytest

from tests.launchers import launch, variable

RUN = ("--", "--config=C")


def gpu_flags() -> str:
    """XLA_FLAGS of launch/gpu_node.sh."""
    return variable("XLA_FLAGS", launch("gpu_node", "--dry_run", "--gpus=2", *RUN).stdout)


def tpu_flags() -> str:
    """LIBTPU_INIT_ARGS of launch/tpu_pod.sh."""
    told = launch("tpu_pod", "start", "--dry_run", "--name=n", "--zone=z", *RUN).stdout
    return variable("LIBTPU_INIT_ARGS", told)


@pytest.mark.parametrize(("more", "known"), [("", True), (" --xla_gpu_enable_magic=true", False)])
def test_xla_knows_the_flags_for_gpus(more: str, known: bool) -> None:
    """Its CPU build has the same table of them."""
    assert gpu_flags().count("--xla_gpu_") >= 3
    around = {**os.environ, "XLA_FLAGS": gpu_flags() + more, "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(program, env=around, capture_output=True, text=True)
    assert (done.returncode == 0) == known, done.stderr
    assert ("Unknown flag" in done.stderr) != known
