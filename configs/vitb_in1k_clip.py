"""AMD on ImageNet-1k: a CLIP ViT-L teaches a ViT-B.

    python -m amd_jax.main --config=configs/vitb_in1k_clip.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.teacher.weights=hf://openai/clip-vit-large-patch14

The teacher is OpenAI's, Hugging Face's file of that name; OpenCLIP's need --config.teacher.mlp=gelu. Its
patches are of 14 pixels: it sees the images resized to 196, and its positions, which were trained at
224 pixels, interpolated.

No such run is published: there is no result to aim at, and every number here is our choice, taken over from
AMD with a MAE teacher (`configs/common.py`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.amd_images_from(config, "clip", patch_size=14)
    config.student.size = "base"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 384, 4, 6
    return common.finish(config, argument)
