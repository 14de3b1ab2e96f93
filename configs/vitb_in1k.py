"""AMD on ImageNet-1k: a MAE ViT-L teaches a ViT-B.

    python -m amd_jax.main --config=configs/vitb_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.teacher.weights=mae_pretrain_vit_large.pth

The teacher is MAE's published ViT-L (our choice among its files: the encoder that was pre-trained with
normalised targets; `hf://timm/vit_large_patch16_224.mae` is the same), or the workdir of a run of
`configs/mae_vitl_in1k.py`.

Published result after fine-tuning: 84.6 % top-1 (arXiv 2311.03149, 800 epochs). The paper's image code and
recipe are not released. What it does not give is marked "our choice".
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.amd_images(config)
    config.student.size = "base"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 384, 4, 6
    return common.finish(config, argument)
