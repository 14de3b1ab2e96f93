"""VideoMAE on Kinetics-400: pre-trains a ViT-L, the teacher of the AMD runs.

    python -m amd_jax.main --config=configs/videomae_vitl_k400.py --workdir=DIR --config.data.path=VIDEOS

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). The recipe is the
released one (MCG-NJU/VideoMAE scripts/kinetics): 1600 epochs, batch 512, decoder of 12 blocks. Published
result after fine-tuning: 85.2 % top-1 with 16×5×3 views.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.videomae_videos(config)
    config.student.size = "large"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 512, 12, 8
    config.epochs = 1600.0
    config.batch_size = 512
    return common.finish(config, argument)
