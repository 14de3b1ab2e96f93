"""Names for encoder sizes, as the field uses them."""

from typing import NamedTuple


class Size(NamedTuple):
    """Sizes of an encoder: features per token, blocks, attention heads, hidden features of the MLP."""

    width: int
    depth: int
    heads: int
    mlp_width: int


SIZES: dict[str, Size] = {
    "debug": Size(32, 2, 2, 128),
    "tiny": Size(192, 12, 3, 768),
    "small": Size(384, 12, 6, 1536),
    "base": Size(768, 12, 12, 3072),
    "large": Size(1024, 24, 16, 4096),
    "huge": Size(1280, 32, 16, 5120),
    "giant": Size(1408, 40, 16, 6144),  # VideoMAE v2
    # Of published teachers.
    "so400m": Size(1152, 27, 16, 4304),  # SigLIP
    "dinov2_giant": Size(1536, 40, 24, 4096),  # SwiGLU
    "dinov3_7b": Size(4096, 40, 32, 8192),  # SwiGLU
    "gigantic": Size(1664, 48, 16, 8192),  # OpenCLIP
}
