"""Fine-tuning a ViT-B that DMAE pre-trained, on ImageNet-1k, as DMAE does.

    python -m amd_jax.main --config=configs/finetune_dmae_vitb_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.student.weights=PRETRAINED

PRETRAINED is the workdir of a run of `configs/dmae_vitb_in1k.py`, or the pre-trained ViT-B that DMAE's
authors published. The recipe is their released one: MAE's with layer decay 0.75, drop path 0.15, 20 warm-up
epochs and 8 groups of mixup. Published: 84.0 % top-1 (arXiv 2208.12256).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.dmae_finetune_images(config)
    config.student.size = "base"
    return common.finish(config, argument)
