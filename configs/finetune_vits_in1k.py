"""Fine-tuning a pre-trained ViT-S on ImageNet-1k.

    python -m amd_jax.main --config=configs/finetune_vits_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.student.weights=PRETRAINED

PRETRAINED is the workdir of a pre-training run, as of `configs/vits_in1k.py`; MAE published no ViT-S.
The recipe is MAE's released one (layer decay 0.65, mean pooling). With
`--config.eval.only=True` the newest checkpoint is scored and nothing is trained. Published:
82.1 % top-1 from AMD. The recipe is ViT-B's: ViT-S has none of its own.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_images(config)
    config.student.size = "small"
    return common.finish(config, argument)
