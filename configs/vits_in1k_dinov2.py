"""AMD on ImageNet-1k: a DINOv2 ViT-L with registers teaches a ViT-S.

    python -m amd_jax.main --config=configs/vits_in1k_dinov2.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.teacher.weights=hf://facebook/dinov2-with-registers-large

The teacher is Hugging Face's file of that name; timm has it as
hf://timm/vit_large_patch14_reg4_dinov2.lvd142m. Its patches are of 14 pixels: it sees the student's images
resized to 196, and its positions, which were trained at 518 pixels, interpolated.

No such run is published: there is no result to aim at, and every number here is our choice, taken over from
AMD with a MAE teacher (`configs/common.py`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.amd_images_from(config, "dinov2_registers", patch_size=14)
    config.student.size = "small"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 192, 4, 3
    return common.finish(config, argument)
