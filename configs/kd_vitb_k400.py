"""A video ViT-B that learns from the logits of a fine-tuned ViT-L on Kinetics-400.

    python -m amd_jax.main --config=configs/kd_vitb_k400.py --workdir=DIR --config.data.path=VIDEOS \\
        --config.student.weights=hf://MCG-NJU/videomae-base \\
        --config.teacher.weights=hf://MCG-NJU/videomae-large-finetuned-kinetics

VIDEOS holds the videos and their lists, `train.csv` and `val.csv` (see docs/video.md). Both are
VideoMAE's published files; the workdir of a run does as well, for the student also of
`configs/vitb_k400.py`.

Nobody published this run. It is fine-tuning of the ViT-B with the loss of `configs/kd_vitb_in1k.py`;
temperature and weight are our choice.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(argument: str = "") -> ConfigDict:
    """The run; `:smoke` shrinks it."""
    config = common.base()
    common.finetune_videos(config)
    common.kinetics(config)
    config.method = "kd"
    config.student.size, config.teacher.size = "base", "large"
    config.epochs, config.optim.base_lr = 90.0, 7e-4
    return common.finish(config, argument)
