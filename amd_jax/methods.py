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
    """

    task: str
    evaluators: tuple[str, ...]
    teacher: Literal["", "features", "logits"] = ""
    sees_more: bool = False
    aligns_cls: bool = False
    labels: bool = False


METHODS: dict[str, Method] = {
    "amd": Method("pretrain", ("pictures", "probe"), teacher="features", sees_more=True),
    "dmae": Method("pretrain", ("pictures", "probe"), teacher="features", aligns_cls=True),
    "mae": Method("pretrain", ("pictures", "probe")),
    "finetune": Method("classify", ("accuracy", "views"), labels=True),
    "kd": Method("classify", ("accuracy", "views"), teacher="logits", labels=True),
}


def of(config: ConfigDict) -> Method:
    """The row of `config.method`."""
    return METHODS[config.method]
