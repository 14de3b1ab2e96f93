"""`--format=official`: everything, under the names of the released code."""

import numpy as np

from amd_jax.convert.formats import renamed
from amd_jax.convert.formats.subject import Contents, Subject
from amd_jax.convert.names import entries, official
from amd_jax.convert.network import Network


def cut(network: Network) -> Network:
    """It has a place for everything."""
    return network


def contents(subject: Subject) -> Contents:
    """The weights alone."""
    table = official.table(entries.Parts.of(subject.network))
    arrays = renamed.tensors(subject, table, "the released code has no name for it")
    arrays |= _unused_norms(subject.network)
    return Contents({renamed.WEIGHTS: renamed.writing(subject, arrays)})


def _unused_norms(network: Network) -> dict[str, np.ndarray]:
    """AMD's generators have a norm that their forward pass does not use; its loader asks for it."""
    a = network.align
    if a is None or not network.video:
        return {}
    names = [f"generators.{i}.norm" for i in range(len(a.student_gen))]
    ones, zeros = np.ones(a.teacher_width, np.float32), np.zeros(a.teacher_width, np.float32)
    return {f"{n}.weight": ones for n in names} | {f"{n}.bias": zeros for n in names}
