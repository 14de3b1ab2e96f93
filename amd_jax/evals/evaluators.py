"""The evaluations by name: what a method's row chooses from, and the loop walks.

Who adds one writes a file beside this one and gives it a name here.
"""

from collections.abc import Callable

from amd_jax import methods
from amd_jax.evals import accuracy, features, pictures
from amd_jax.evals.evaluation import Evaluation, Setting

# Each makes its evaluation, or None where the config turns it off.
EVALUATORS: dict[str, Callable[[Setting], Evaluation | None]] = {
    "accuracy": accuracy.evaluation,
    "views": accuracy.of_many_views,
    "probe": features.evaluation,
    "pictures": pictures.evaluation,
}


def make_evaluations(setting: Setting) -> list[Evaluation]:
    """Those of the run's method that the config does not turn off, in the order in which they are made."""
    made = (EVALUATORS[name](setting) for name in methods.of(setting.config).evaluators)
    return [evaluation for evaluation in made if evaluation is not None]
