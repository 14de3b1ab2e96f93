"""AMD on ImageNet-1k: a SigLIP 2 ViT-L teaches a ViT-B.

    python -m amd_jax.main --config=configs/vitb_in1k_siglip2.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.teacher.weights=hf://google/siglip2-large-patch16-256

The teacher is Hugging Face's file of that name. It sees the student's images of 224 pixels; its positions,
which were trained at 256, are interpolated.

No such run is published: there is no result to aim at, and every number here is our choice, taken over from
AMD with a MAE teacher (`configs/common.py`).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.amd_images_from(config, "siglip")
    config.student.size = "base"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 384, 4, 6
    return common.finish(config, argument)
