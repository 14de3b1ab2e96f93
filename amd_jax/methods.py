"""The methods that train a student, a row each. No other file compares their names.

Who adds a method adds a row; and a loss of its own in steps/, if no task there has it yet.
"""

import dataclasses
from typing import Literal

from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Method:
    """What the rest of the code has to know of a method.

    Attributes:
      task: a name from `TASKS` in steps/tasks.py.
      evaluators: names from `EVALUATORS` in evals/evaluators.py, in the order in which they run.
      teacher: what of a frozen teacher the student learns: nothing (""), the features of an encoder, or the
        logits of a classifier.
      sees_more: whether the teacher sees patches that the student does not; those are aligned by generators.
      aligns_cls: whether the CLS token's features are aligned as well.
      labels: whether the student is a classifier and learns from labels.
      title: its name in full and where it was published, for readers of a model card.
    """

    task: str
    evaluators: tuple[str, ...]
    teacher: Literal["", "features", "logits"] = ""
    sees_more: bool = False
    aligns_cls: bool = False
    labels: bool = False
    title: str = ""


METHODS: dict[str, Method] = {
    "amd": Method(
        "pretrain",
        ("pictures", "probe"),
        teacher="features",
        sees_more=True,
        title="AMD, asymmetric masked distillation (arXiv 2311.03149)",
    ),
    "dmae": Method(
        "pretrain",
        ("pictures", "probe"),
        teacher="features",
        aligns_cls=True,
        title="DMAE, masked autoencoders that learn a teacher's features (arXiv 2208.12256)",
    ),
    "mae": Method(
        "pretrain",
        ("pictures", "probe"),
        title="masked autoencoding: MAE (arXiv 2111.06377), of videos VideoMAE (arXiv 2203.12602)",
    ),
    "finetune": Method("classify", ("accuracy", "views"), labels=True, title="fine-tuning on labels"),
    "kd": Method(
        "classify",
        ("accuracy", "views"),
        teacher="logits",
        labels=True,
        title="fine-tuning on labels and the logits of a teacher (knowledge distillation)",
    ),
}


def of(config: ConfigDict) -> Method:
    """The row of `config.method`."""
    return METHODS[config.method]
