"""DMAE on ImageNet-1k: a MAE ViT-L teaches a ViT-B, both seeing the same patches.

    python -m amd_jax.main --config=configs/dmae_vitb_in1k.py --workdir=DIR \\
        --config.data.path=TFDS_DIR --config.teacher.weights=mae_visualize_vit_large.pth

The teacher is the MAE ViT-L that was pre-trained without normalised targets, as the released code wants it:
published under that name, not as `mae_pretrain_vit_large.pth`. `hf://facebook/vit-mae-large` may be the same
(docs/weights.md says what is known).

Fine-tune with `configs/finetune_dmae_vitb_in1k.py`.

`:mask95` and `:mask98` hide 95 % and 98 % (10 and 4 visible patches). Published results after
fine-tuning: 84.0 % top-1, 83.6 and 82.4 with fewer patches (arXiv 2208.12256).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:mask95`, `:mask98`, or `:smoke`, which shrinks it."""
    config = common.base()
    common.dmae_images(config)
    config.student.size = "base"
    return common.finish(config, common.fewer_patches(config, argument))
