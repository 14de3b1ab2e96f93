"""What is known of devices: their peaks, their memory and links, and what a config's "auto" means on them."""

import dataclasses
import os
import re

from ml_collections import ConfigDict

from amd_jax.errors import ConfigError

# Dense peak in TFLOP/s of one jax device, for 16-bit and for float32 matrix products at jax's default
# precision (`jax.lax.Precision`): a TPU rounds float32 inputs to bfloat16, an NVIDIA GPU since Ampere
# uses TF32. Vendors often print the figure with sparsity, twice the dense one.
#
# Figures are the vendors' published ones. A TPU device is a chip, except for v2, v3 and 7x, where it is one
# of a chip's two cores; names as in jax's mosaic/tpu_info.py. GPU names are what CUDA reports, as a pattern;
# GeForce figures are for accumulation in float32.
_PEAK_TFLOPS: tuple[tuple[str, float, float], ...] = (
    ("TPU v2", 45 / 2, 45 / 2),
    ("TPU v3", 123 / 2, 123 / 2),
    ("TPU v4 lite", 138, 138),
    ("TPU v4", 275, 275),
    ("TPU v5 lite|TPU v5e", 197, 197),
    ("TPU v5|TPU v5p", 459, 459),
    ("TPU v6 lite|TPU v6e", 918, 918),
    ("TPU7x", 2307 / 2, 2307 / 2),
    ("NVIDIA GB200.*", 2500, 1250),
    ("NVIDIA B200.*", 2250, 1125),
    ("NVIDIA GH200.*", 989.5, 494.5),
    ("NVIDIA H200 NVL", 835.5, 417.5),
    ("NVIDIA H200", 989.5, 494.5),
    ("NVIDIA H100 NVL", 835.5, 417.5),
    ("NVIDIA H100 PCIe", 756.5, 378),
    (r"NVIDIA H100 \d+GB HBM3", 989.5, 494.5),  # SXM
    ("(NVIDIA )?A100[- ].*", 312, 156),
    ("NVIDIA L40S", 362, 183),
    ("NVIDIA L4", 121, 60),
    (r"Tesla V100-SXM\d-.*", 125, 15.7),
    ("Tesla V100-PCIE-.*", 112, 14),
    ("Tesla T4", 65, 8.1),
    ("NVIDIA GeForce RTX 3090", 71, 35.6),
    ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
)
# The same for int8 and for fp8 (float8_e4m3fn), where a device multiplies them faster than 16 bits.
_EIGHT_BIT_TOPS: tuple[tuple[str, float | None, float | None], ...] = (
    ("TPU v5 lite|TPU v5e", 394, None),
    ("TPU v5|TPU v5p", 918, None),
    ("TPU v6 lite|TPU v6e", 1836, None),
    ("TPU7x", None, 4614 / 2),
    ("NVIDIA GH200.*", 1979, 1979),
    ("NVIDIA H200 NVL", 1671, 1671),
    ("NVIDIA H200", 1979, 1979),
    ("NVIDIA H100 NVL", 1671, 1671),
    ("NVIDIA H100 PCIe", 1513, 1513),
    (r"NVIDIA H100 \d+GB HBM3", 1979, 1979),
    ("(NVIDIA )?A100[- ].*", 624, None),
)
# Volta and Turing have float16 but no bfloat16 matrix units.
_NO_BFLOAT16 = "Tesla (V100|T4).*"


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a plan has to know of a chip that it does not run on.

    Attributes:
      kind: `jax.Device.device_kind`, which the peaks above go by.
      platform: "tpu" or "gpu".
      memory: bytes that programs may use.
      bandwidth: bytes a second between chip and its memory.
      links: bytes a second that a chip can send to others, over all its links together and in one direction.
      per_host: chips of a host in slices of several hosts.
    """

    kind: str
    platform: str
    memory: int
    bandwidth: float
    links: float
    per_host: int


# TPU memory is what libtpu 0.0.42 says is available when a program is too large ("exceeds available HBM"):
# less than the 32, 16, 95 and 32 GB of the data sheets. Bandwidths are those of cloud.google.com/tpu/docs/v4,
# v5e, v5p and v6e; links are half of their "bidirectional ICI bandwidth", and for v4, where that is not
# given, 6 links of 50 GB/s (arXiv 2304.01433). Hosts are as libtpu describes them.
#
# GPU memory is what is printed, of which CUDA and jax keep some; figures of NVIDIA's data sheets for the SXM
# boards, links half of NVLink's.
CHIPS = {
    "v4": Chip("TPU v4", "tpu", int(30.75 * 2**30), 1200e9, 300e9, 4),
    "v5e": Chip("TPU v5 lite", "tpu", int(15.75 * 2**30), 819e9, 200e9, 4),
    "v5p": Chip("TPU v5", "tpu", int(95.74 * 2**30), 2765e9, 600e9, 4),
    "v6e": Chip("TPU v6 lite", "tpu", int(31.25 * 2**30), 1638e9, 400e9, 4),
    "a100": Chip("NVIDIA A100-SXM4-80GB", "gpu", int(80e9), 2039e9, 300e9, 8),
    "h100": Chip("NVIDIA H100 80GB HBM3", "gpu", int(80e9), 3350e9, 450e9, 8),
    "h200": Chip("NVIDIA H200", "gpu", int(141e9), 4800e9, 450e9, 8),
}
# What `jax.experimental.topologies` has to be told: the cores of a v4 as one device, and slices of one host.
TOPOLOGY_OPTIONS: dict[str, dict[str, object]] = {
    "v4": {"chip_config_name": "megacore"},
    "v5e:1x1": {"chips_per_host_bounds": (1, 1, 1)},
    "v5e:2x4": {"chips_per_host_bounds": (2, 4, 1)},
    "v6e:1x1": {"chips_per_host_bounds": (1, 1, 1)},
    "v6e:2x4": {"chips_per_host_bounds": (2, 4, 1)},
}
# What the TPU compiler is told so that chips add gradients up while the backward pass goes on; by itself it
# waits for every sum (docs/SCALING.md). Without any one of the three it does so too.
_TPU_COMPILER = {
    # A sum may be begun and waited for at different places,
    "xla_enable_async_all_reduce": "true",
    # and go on inside the operations between them.
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    # Small sums are put together, up to 1 MiB, and waited for. Larger ones stay alone.
    "xla_jf_crs_combiner_threshold_in_bytes": str(2**20),
}


def compiler_options(platform: str) -> dict[str, str]:
    """What a step's compiler is told; a flag that LIBTPU_INIT_ARGS names is the user's."""
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    options = _TPU_COMPILER if platform == "tpu" else {}
    return {name: value for name, value in options.items() if f"--{name}" not in given}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Dense peak FLOP/s of one jax device; multiply by the number of devices for that of a run.

    Args:
      device_kind: `jax.Device.device_kind`.
      dtype: compute type, "bfloat16", "float16" or "float32" (at jax's default matmul precision), or
        "int8" or "fp8"; a device that is no faster with these has its peak for bfloat16.

    Returns:
      None for a CPU, a device or type that is not in the table, and a part of a GPU (MIG).
    """
    if dtype in ("int8", "fp8") and " MIG " not in device_kind:
        found = (row for row in _EIGHT_BIT_TOPS if re.fullmatch(row[0], device_kind))
        _, int8, fp8 = next(found, ("", None, None))
        tops = int8 if dtype == "int8" else fp8
        return tops * 1e12 if tops else peak_flops(device_kind, "bfloat16")
    if " MIG " in device_kind or dtype not in ("bfloat16", "float16", "float32"):
        return None
    if dtype == "bfloat16" and re.fullmatch(_NO_BFLOAT16, device_kind):
        return None
    for pattern, half, single in _PEAK_TFLOPS:
        if re.fullmatch(pattern, device_kind):
            return (single if dtype == "float32" else half) * 1e12
    return None


def resolved(config: ConfigDict, platform: str) -> ConfigDict:
    """A copy of `config` in which no key of `model` is "auto" any more.

    Args:
      config: of a run.
      platform: of the devices that will compute, which need not be here: "cpu", "gpu" or "tpu".

    Raises:
      ConfigError: the config asks for what these devices do not have.
    """
    config = config.copy_and_resolve_references()
    model = config.model
    if model.dtype == "auto":
        model.dtype = "float32" if platform == "cpu" else "bfloat16"
    if model.residual == "auto":
        model.residual = model.dtype
    if model.attention == "auto":
        # As measured on the CPU (docs/PERFORMANCE.md) and as compiled for TPUs, where scores stay on the chip
        # (docs/SCALING.md); on GPUs nothing has been measured to be better. Devices that share heads would
        # have to send them.
        model.attention = "xla" if platform == "gpu" or config.mesh.tensor > 1 else "heads"
    if model.attention == "cudnn" and platform != "gpu":
        raise ConfigError(f"model.attention={model.attention!r} needs a GPU; this is {platform}")
    return config
