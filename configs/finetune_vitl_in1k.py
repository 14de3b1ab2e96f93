"""Fine-tuning a MAE ViT-L on ImageNet-1k: the teacher of `configs/kd_vitb_in1k.py`.

    python -m amd_jax.main --config=configs/finetune_vitl_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.student.weights=mae_pretrain_vit_large.pth

`student.weights` is the workdir of a run of `configs/mae_vitl_in1k.py`, or MAE's published file as here
(`hf://timm/vit_large_patch16_224.mae` is the same). The recipe is MAE's released one for ViT-L: as for ViT-B
but 50 epochs, base lr 1e-3, layer decay 0.75, drop path 0.2. Published: 85.9 % top-1; the published result
of it is `mae_finetuned_vit_large.pth`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_images(config)
    config.student.size = "large"
    config.epochs = 50.0
    config.optim.base_lr = 1e-3
    config.optim.layer_decay = 0.75
    config.finetune.drop_path = 0.2
    return common.finish(config, argument)
