"""Fine-tuning a pre-trained video ViT-S on Something-Something V2.

    python -m amd_jax.main --config=configs/finetune_vits_ssv2.py --workdir=DIR \\
        --config.data.path=VIDEOS --config.student.weights=PRETRAINED

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). PRETRAINED is the
workdir of a pre-training run, as of `configs/vits_ssv2.py`, or a published file. AMD's released recipe.
Published: 70.2 % top-1 from AMD, 66.8 % from VideoMAE, with the 2 clips × 3 crops that are scored at the
end.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_videos(config)
    common.something(config)
    config.student.size = "small"
    config.epochs, config.optim.base_lr = 40.0, 1e-3
    config.batch_size, config.finetune.mix_groups = 256, 16  # 16 GPUs
    return common.finish(config, argument)
