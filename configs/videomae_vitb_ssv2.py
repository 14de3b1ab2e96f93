"""VideoMAE on Something-Something V2: pre-trains a ViT-B, the baseline of AMD.

    python -m amd_jax.main --config=configs/videomae_vitb_ssv2.py --workdir=DIR --config.data.path=VIDEOS

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). The recipe is the
released one (MCG-NJU/VideoMAE scripts/ssv2): 2400 epochs, batch 2048. Published result after fine-tuning:
70.8 % top-1 with 16×2×3 views.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.videomae_videos(config)
    config.data.stride = 2  # VideoMAE samples as for Kinetics, AMD does not
    config.student.size = "base"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 384, 4, 6
    config.epochs = 2400.0
    return common.finish(config, argument)
