"""VideoMAE on Something-Something V2: pre-trains a ViT-L, the teacher of the AMD runs.

    python -m amd_jax.main --config=configs/videomae_vitl_ssv2.py --workdir=DIR --config.data.path=VIDEOS

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). No script of this
run is released: 2400 epochs from AMD's name of its file, the rest is our choice, Kinetics'. Its accuracy
is not in VideoMAE's model zoo.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.videomae_videos(config)
    config.data.stride = 2  # VideoMAE samples as for Kinetics, AMD does not
    config.student.size = "large"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 512, 12, 8
    config.epochs = 2400.0
    config.batch_size = 512
    return common.finish(config, argument)
