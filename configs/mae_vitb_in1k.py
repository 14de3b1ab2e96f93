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
    common.image_recipe(config)
    config.method = "mae"
    config.student.size = "base"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 512, 8, 16
    config.mask.student_ratio = 0.75
    config.mask.floor = "visible"
    config.loss.target = "patch"
    config.batch_size, config.epochs = 4096, 800.0
    config.optim.base_lr, config.optim.warmup_epochs = 1.5e-4, 40.0
    config.log.every, config.checkpoint.every = 100, 2000
    return common.finish(config, argument)
