"""Fine-tuning a pre-trained video ViT-S on Kinetics-400.

    python -m amd_jax.main --config=configs/finetune_vits_k400.py --workdir=DIR \\
        --config.data.path=VIDEOS --config.student.weights=PRETRAINED

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). PRETRAINED is the
workdir of a pre-training run, as of `configs/vits_k400.py`, or a published file. AMD's released recipe.
Published: 80.1 % top-1 from AMD, 79.0 % from VideoMAE, with the 5 clips × 3 crops that are scored at the
end.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_videos(config)
    common.kinetics(config)
    config.student.size = "small"
    config.epochs, config.optim.base_lr = 150.0, 1e-3
    return common.finish(config, argument)
