"""What an evaluation is, and what it is made of."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from amd_jax.data.example import Source
from amd_jax.signals import Stop, never
from amd_jax.steps.train_state import TrainState


class Scorer(Protocol):
    """Scores parameters; `stop` is asked before each batch, by all processes equally often."""

    def __call__(self, params: Any, stop: Stop = never) -> dict[str, float]:
        """The scores by name; raises Interrupted where `stop` says so."""


class Picture(NamedTuple):
    """A picture `[height, width, 1 or 3]` uint8; of clips also frames `[T, height, width, 1 or 3]`."""

    still: np.ndarray
    frames: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run; it has scores, or it draws a picture.

    Attributes:
      name: as in `evaluators.EVALUATORS`.
      every: steps between two; each is also made after the last step, and 0 is only then.
      scores: of a state, by name; asks now and then whether to stop.
      mark: one of these names, by which a reader of the metrics knows that it was made.
      draw: a picture of a state.
    """

    name: str
    every: int
    scores: Callable[[TrainState, Stop], dict[str, float]] | None = None
    draw: Callable[[TrainState], Picture] | None = None
    mark: str = ""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What evaluations are made of; all processes of a run make and call them together.

    Attributes:
      config: of the run, every "auto" resolved.
      task: what the run trains.
      mesh: over which an evaluation is shared.
      train: examples to fit on.
      test: examples to score and draw.
      steps_per_epoch: of training.
    """

    config: ConfigDict
    task: Any
    mesh: jax.sharding.Mesh
    train: Source
    test: Source
    steps_per_epoch: float

    def steps(self, epochs: float) -> int:
        """A cadence in steps; 0 stays 0."""
        return max(1, round(epochs * self.steps_per_epoch)) if epochs else 0
