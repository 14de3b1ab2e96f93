"""Fine-tuning a pre-trained video ViT-B on UCF101.

    python -m amd_jax.main --config=configs/finetune_vitb_ucf101.py --workdir=DIR \\
        --config.data.path=VIDEOS --config.student.weights=PRETRAINED

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). PRETRAINED is the
workdir of a pre-training run, as of `configs/vitb_k400.py`, or a published file. The recipe is VideoMAE's
for UCF101 (scripts/ucf101/…/finetune.sh). Published: 97.1 % top-1 from AMD pre-trained on Kinetics-400.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_videos(config)
    common.kinetics(config)
    config.student.size = "base"
    # VideoMAE's script for UCF101; AMD releases none.
    config.epochs, config.optim.base_lr, config.optim.min_lr = 100.0, 5e-4, 1e-5
    config.batch_size, config.finetune.mix_groups = 128, 8  # 8 GPUs
    config.finetune.drop_path, config.finetune.head_drop = 0.2, 0.5
    config.optim.layer_decay = 0.7
    return common.finish(config, argument)
