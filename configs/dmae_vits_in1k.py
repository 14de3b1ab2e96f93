"""DMAE on ImageNet-1k: a MAE ViT-B teaches a ViT-S, both seeing the same patches.

    python -m amd_jax.main --config=configs/dmae_vits_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.teacher.weights=mae_visualize_vit_base.pth

The teacher is a MAE ViT-B that was pre-trained without normalised targets, as the released code wants its
ViT-L: published under that name, not as `mae_pretrain_vit_base.pth`. `hf://facebook/vit-mae-base` may be the
same (docs/weights.md says what is known).

`:mask95` and `:mask98` hide 95 % and 98 % (10 and 4 visible patches). The paper also reports this
pair; its code aligns about 3/4 of the depth (arXiv 2208.12256).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:mask95`, `:mask98`, or `:smoke`, which shrinks it."""
    config = common.base()
    common.dmae_images(config)
    config.student.size = "small"
    config.teacher.size = "base"
    config.align.teacher_layers = (9,)  # 3/4 of the teacher's 12
    return common.finish(config, common.fewer_patches(config, argument))
