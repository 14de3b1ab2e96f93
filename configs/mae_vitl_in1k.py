"""MAE on ImageNet-1k: pre-trains a ViT-L, the teacher of the AMD and DMAE runs.

    python -m amd_jax.main --config=configs/mae_vitl_in1k.py --workdir=DIR --config.data.path=TFDS_DIR

The recipe is the released one (800 epochs, batch 4096, base lr 1.5e-4; facebookresearch/mae PRETRAIN.md),
with the normalised pixel targets it recommends; for a teacher as DMAE's, which had none, add
`--config.loss.target=pixels`. Published result after fine-tuning: 85.9 % top-1 at 1600 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.mae_images(config)
    config.student.size = "large"
    return common.finish(config, argument)
