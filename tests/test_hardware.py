"""Peaks of devices, and what "auto" means on them."""

import pytest

from amd_jax import hardware
from amd_jax.config import default
from amd_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "dtype", "tflops"),
    [
        ("TPU v2", "bfloat16", 22.5),
        ("TPU v3", "bfloat16", 61.5),
        ("TPU v4", "bfloat16", 275),
        ("TPU v4 lite", "bfloat16", 138),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5e", "float32", 197),
        ("TPU v5", "bfloat16", 459),
        ("TPU v5p", "bfloat16", 459),
        ("TPU v6 lite", "bfloat16", 918),
        ("TPU7x", "bfloat16", 1153.5),
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312),
        ("A100-SXM4-40GB", "bfloat16", 312),
        ("NVIDIA A100 80GB PCIe", "float32", 156),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.5),
        ("NVIDIA H100 PCIe", "bfloat16", 756.5),
        ("NVIDIA H100 NVL", "bfloat16", 835.5),
        ("NVIDIA H200", "float32", 494.5),
        ("NVIDIA GH200 480GB", "bfloat16", 989.5),
        ("NVIDIA B200", "bfloat16", 2250),
        ("NVIDIA GB200", "bfloat16", 2500),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40S", "bfloat16", 362),
        ("Tesla V100-SXM2-16GB", "float16", 125),
        ("Tesla V100-SXM2-16GB", "float32", 15.7),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA GeForce RTX 3090", "bfloat16", 71),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bfloat16", None),
        ("NVIDIA H200", "float64", None),
        ("TPU v5 lite", "int8", 394),
        ("TPU v5 lite", "fp8", 197),  # as fast as 16 bits
        ("TPU v4", "int8", 275),
        ("TPU v6 lite", "int8", 1836),
        ("NVIDIA H100 80GB HBM3", "fp8", 1979),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "int8", None),
        ("cpu", "int8", None),
        ("cpu", "float32", None),
        ("TPU v99", "bfloat16", None),
    ],
)
def test_peak_flops(kind: str, dtype: str, tflops: float | None) -> None:
    expected = None if tflops is None else pytest.approx(tflops * 1e12)
    assert hardware.peak_flops(kind, dtype) == expected


@pytest.mark.parametrize(
    ("platform", "dtype", "attention"),
    [("cpu", "float32", "heads"), ("gpu", "bfloat16", "xla"), ("tpu", "bfloat16", "heads")],
)
def test_auto_is_what_the_devices_are_good_at_whoever_asks(platform: str, dtype: str, attention: str) -> None:
    config = default()
    found = hardware.resolved(config, platform)
    assert (found.model.dtype, found.model.attention) == (dtype, attention)
    assert found.model.residual == dtype
    assert config.model.dtype == "auto"  # what the run records stays as it was asked for
    config.mesh.tensor = 2
    assert hardware.resolved(config, platform).model.attention == "xla"


def test_what_was_asked_for_is_kept_and_refused_where_it_cannot_be_had() -> None:
    config = default()
    config.model.dtype, config.model.attention = "float32", "cudnn"
    config.model.residual = "bfloat16"
    assert hardware.resolved(config, "gpu").model == config.model
    with pytest.raises(ConfigError, match="needs a GPU; this is tpu"):
        hardware.resolved(config, "tpu")


def test_a_compilers_flag_that_the_user_sets_is_left_to_him(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    ours = hardware.compiler_options("tpu")
    name, other = list(ours)[:2]
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--{name}=false --some_other=1")
    assert hardware.compiler_options("tpu").keys() == ours.keys() - {name}
    assert other in hardware.compiler_options("tpu")
    assert hardware.compiler_options("cpu") == hardware.compiler_options("gpu") == {}
