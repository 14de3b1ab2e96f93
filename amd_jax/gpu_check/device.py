"""What the checks run on."""

import jax
import jaxlib

from amd_jax.gpu_check.rows import MEASURED, Setting

CHECK = "device"


def check(setting: Setting) -> None:
    """The accelerator, or that there is none, and versions."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    memory = f", {stats['bytes_limit'] / 2**30:.1f} GiB to use" if "bytes_limit" in stats else ""
    platform = f"{device.client.platform_version}".replace("\n", " ").strip()
    text = f"{device.device_kind}{memory}, jax {jax.__version__}, jaxlib {jaxlib.__version__}, {platform}"
    setting.add(CHECK, device.platform, MEASURED, text, {"platform": device.platform})
