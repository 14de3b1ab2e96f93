"""What plans of comparisons share. No config itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common


def ordered(parts: Mapping[str, Any]) -> ConfigDict:
    """Tables have their rows in this order."""
    return ConfigDict(dict(parts), sort_keys=False)


def small_base() -> ConfigDict:
    """A run on Fashion-MNIST, whose length is not said."""
    config = common.base()
    common.small_images(config)
    config.data.source, config.data.name = "tfds", "fashion_mnist"
    config.optim.base_lr = 8e-3  # 2e-3 at batch 64; better than half of it in compare_fashion.py:tune
    config.probe.examples = 20_000
    scored_at_the_end(config)
    return config


def scored_at_the_end(config: ConfigDict) -> None:
    """As the cells of a comparison are; a method says how long it runs."""
    config.model.unroll = True  # narrow layers: a tenth faster on a core, and compiled as soon
    config.steps, config.epochs = 0, 0.0
    config.eval.every_epochs = 1e6
    config.log.every, config.log.pictures_every = 100, 0
    config.checkpoint.every, config.checkpoint.keep = 500, 1


def three_and_a_half_times(base: ConfigDict, wide: int = 1) -> None:
    """A teacher to the student as ViT-L is to ViT-B: twice as deep, a third wider, 3.6 times the parameters.

    Student 48 wide and 4 deep (0.11 M), teacher 64 and 8 (0.40 M), or both `wide` times as wide.
    """
    base.student.width, base.student.heads = 48 * wide, 3 * wide
    base.teacher.width, base.teacher.depth, base.teacher.heads = 64 * wide, 8, 4 * wide
    base.align.teacher_layers = (4, 8)


def length(steps: int) -> dict[str, Any]:
    """How long a run takes; a tenth of it is warm-up."""
    return {"steps": steps, "optim": {"warmup_steps": steps // 10}}


def run(method: str, steps: int, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """What a run changes: its method, its length, and whole sections."""
    its = length(steps)
    return {"method": method, **its, **sections, "optim": {**sections.get("optim", {}), **its["optim"]}}


SCRATCH = {"method": "mae", "steps": 0, "epochs": 0.0}  # not trained at all


def dmae(steps: int, teacher_layer: int, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """DMAE's loss, CLS token and all, at 3/4 of the depth; the pixels' normalisation is everyone's."""
    loss = {"align": "l1", "feature_norm": "l2", "layers": "sum"}
    align = {"student_layers": (3,), "teacher_layers": (teacher_layer,), "projection": "linear_bias"}
    return run("dmae", steps, loss=loss, align=align, **sections)


def amd(steps: int) -> dict[str, Any]:
    """Features as they are, as published; "layernorm" was no better in compare_fashion.py:tune."""
    return run("amd", steps, loss={"feature_norm": "none"})


def kd(steps: int) -> dict[str, Any]:
    """Logits of a teacher that was fine-tuned on as many labels as the student will be; all examples."""
    return run("kd", steps, finetune={"kd_weight": 1.0})


def curve(of: str, reference: int, points: Mapping[str, int]) -> dict[str, Any]:
    """Runs of a method of other lengths, label → steps; the one of `reference` steps is the method itself."""
    return {
        label: {"of": of, **({} if steps == reference else length(steps))} for label, steps in points.items()
    }


def shorten(parts: Iterable[Any]) -> None:
    """Ten steps for each of a plan's runs that has any."""
    for part in parts:
        if part.get("steps"):
            part.update(length(10))


def finetune(steps: int) -> dict[str, Any]:
    """Much shorter than published recipes: so a larger rate and head, and no augmentation."""
    optim = {"base_lr": 1.6e-2, "b2": 0.999, "layer_decay": 0.75}
    data = {"crop_scale": (1.0, 1.0), "flip": False}
    return run("finetune", steps, optim=optim, data=data, finetune={"head_std": 0.02})
