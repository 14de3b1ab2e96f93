"""Fine-tuning a pre-trained ViT-B on ImageNet-1k, as MAE does.

    python -m amd_jax.main --config=configs/finetune_vitb_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.student.weights=mae_pretrain_vit_base.pth

`student.weights` is the workdir of a pre-training run, or MAE's published file as here
(`hf://timm/vit_base_patch16_224.mae` is the same). The recipe is MAE's released one (layer decay 0.65, mean
pooling). With `--config.eval.only=True` the newest checkpoint, or `mae_finetuned_vit_base.pth` as
`student.weights`, is scored and nothing is trained. Published: 83.6 % top-1 from MAE, 84.6 % from AMD, whose
own recipe for images is not released.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_images(config)
    config.student.size = "base"
    return common.finish(config, argument)
