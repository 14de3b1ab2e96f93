"""A ViT-B that learns from the logits of a fine-tuned ViT-L: the baseline of the DMAE paper.

    python -m amd_jax.main --config=configs/kd_vitb_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.student.weights=mae_pretrain_vit_base.pth \\
        --config.teacher.weights=mae_finetuned_vit_large.pth

Both are MAE's published files; `hf://timm/vit_base_patch16_224.mae` is the first of them. The workdir of a
run does as well: of any pre-training for the student, of `configs/finetune_vitl_in1k.py` for the teacher.

The paper reports 1.2 points less than DMAE's 84.0 % for this way. It gives neither temperature nor weight:
those here are our choice. To start from scratch, leave `student.weights` out and set
`--config.optim.layer_decay=1.0`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_images(config)
    config.student.size = "base"
    config.method = "kd"
    config.teacher.size, config.teacher.positions = "large", "learned"
    return common.finish(config, argument)
