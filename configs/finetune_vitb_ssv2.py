"""Fine-tuning a pre-trained video ViT-B on Something-Something V2.

    python -m amd_jax.main --config=configs/finetune_vitb_ssv2.py --workdir=DIR \\
        --config.data.path=VIDEOS --config.student.weights=PRETRAINED

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). PRETRAINED is the
workdir of a pre-training run, as of `configs/vitb_ssv2.py`, or a published file. AMD's released recipe.
Published: 73.3 % top-1 from AMD, 70.8 % from VideoMAE, with the 2 clips × 3 crops that are scored at the
end.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_videos(config)
    common.something(config)
    config.student.size = "base"
    config.epochs, config.optim.base_lr = 30.0, 5e-4
    config.batch_size, config.finetune.mix_groups = 256, 16  # 16 GPUs
    return common.finish(config, argument)
