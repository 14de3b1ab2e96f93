"""XLA and libtpu know every flag that the launchers give them: both end a program at one they do not know."""

import os
import subprocess
import sys

import pytest

from amd_jax import hardware
from tests.launchers import launch, variable
from tests.tpu import answer, needs_libtpu

RUN = ("--", "--config=C")


def gpu_flags() -> str:
    """XLA_FLAGS of launch/gpu_node.sh."""
    return variable("XLA_FLAGS", launch("gpu_node", "--dry_run", "--gpus=2", *RUN).stdout)


def tpu_flags(own: str = "") -> str:
    """What a step tells the TPU's compiler, and what a user tells libtpu, as libtpu would be told both."""
    ours = (f"--{name}={value}" for name, value in hardware.compiler_options("tpu").items())
    return " ".join([*ours, own]).strip()


@pytest.mark.parametrize(("more", "known"), [("", True), (" --xla_gpu_enable_magic=true", False)])
def test_xla_knows_the_flags_for_gpus(more: str, known: bool) -> None:
    """Its CPU build has the same table of them."""
    assert gpu_flags().count("--xla_gpu_") >= 3
    around = {**os.environ, "XLA_FLAGS": gpu_flags() + more, "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, "-c", "import jax; jax.devices()"]
    done = subprocess.run(program, env=around, capture_output=True, text=True)
    assert (done.returncode == 0) == known, done.stderr
    assert ("Unknown flag" in done.stderr) != known


@needs_libtpu
@pytest.mark.parametrize("without", ["", "xla_enable_async_all_reduce"])
def test_with_the_flags_for_tpus_no_sum_in_a_loop_is_waited_for(without: str) -> None:
    flags = tpu_flags(f"--{without}=false" if without else "")
    sums = answer("tests.tpu_flags", flags)
    assert len(sums) == 2
    assert {overlapped for _, overlapped in sums} == {not without}


@needs_libtpu
def test_libtpu_ends_at_a_flag_that_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="Unknown command line flag 'xla_tpu_magic'"):
        answer("tests.tpu_flags", tpu_flags("--xla_tpu_magic=true"))


def test_kubernetes_and_tpu_vms_hand_on_what_the_user_tells_libtpu() -> None:
    around = {"LIBTPU_INIT_ARGS": "--xla_enable_async_all_reduce=false"}
    told = launch("gke", "apply", "--dry_run", "--name=n", "--image=i", *RUN, **around).stdout
    assert 'value: "--xla_enable_async_all_reduce=false"' in told
    told = launch("tpu_pod", "start", "--dry_run", "--name=n", "--zone=z", *RUN, **around).stdout
    assert variable("LIBTPU_INIT_ARGS", told) == "--xla_enable_async_all_reduce=false"
