"""Fine-tuning a pre-trained video ViT-B on Kinetics-400.

    python -m amd_jax.main --config=configs/finetune_vitb_k400.py --workdir=DIR \\
        --config.data.path=VIDEOS --config.student.weights=PRETRAINED

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). PRETRAINED is the
workdir of a pre-training run, as of `configs/vitb_k400.py`, or a published file. AMD's released recipe.
Published: 82.2 % top-1 from AMD, 81.5 % from VideoMAE, with the 5 clips × 3 crops that are scored at the
end.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_videos(config)
    common.kinetics(config)
    config.student.size = "base"
    config.epochs, config.optim.base_lr = 90.0, 7e-4
    return common.finish(config, argument)
