"""AMD on Kinetics-400: a VideoMAE ViT-L teaches a ViT-B.

    python -m amd_jax.main --config=configs/vitb_k400.py --workdir=DIR --config.data.path=VIDEOS \\
        --config.teacher.weights=VideoMAEv1_vit_L_k400_pt_1600e.pth

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md); other sources are
`--config.data.source=folder`, `clips` and `tfds`. The teacher is VideoMAE's published ViT-L
(`hf://MCG-NJU/videomae-large` is the same), pre-trained for 1600 epochs, or the workdir of a run of
`configs/videomae_vitl_k400.py`. Fine-tune with `configs/finetune_vitb_k400.py`.

Published result after fine-tuning: 82.2 % top-1, 95.3 % top-5 with 16×5×3 views (arXiv 2311.03149; its
"800 epochs" are these 200 with four repeats).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.amd_videos(config)
    config.data.sampling, config.data.stride = "dense", 4
    config.student.size = "base"
    config.decoder.width, config.decoder.depth, config.decoder.heads = 384, 4, 6
    return common.finish(config, argument)
