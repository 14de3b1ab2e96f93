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
    common.finetune_small_sets(config)
    config.student.size = "base"
    return common.finish(config, argument)
