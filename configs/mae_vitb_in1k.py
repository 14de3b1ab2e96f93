"""MAE on ImageNet-1k: pre-trains a ViT-B, the baseline of the AMD and DMAE runs.

    python -m amd_jax.main --config=configs/mae_vitb_in1k.py --workdir=DIR --config.data.path=TFDS_DIR

The recipe is the released one (800 epochs, batch 4096, base lr 1.5e-4; facebookresearch/mae PRETRAIN.md),
with the normalised pixel targets it recommends. Published result after fine-tuning: 83.6 %
top-1 at 1600 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.mae_images(config)
    config.student.size = "base"
    return common.finish(config, argument)
