"""The batches of an evaluation, which a signal may end."""

from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from amd_jax.data import pipeline
from amd_jax.data.example import Source
from amd_jax.signals import Interrupted, Stop


def until(
    stop: Stop, config: ConfigDict, source: Source, clips: int = 1, crops: int = 1
) -> Iterator[pipeline.Batch]:
    """This process's part of each batch of `source`; see `pipeline.eval_batches`.

    Raises:
      Interrupted: `stop`, asked before each batch, says so.
    """
    batches = pipeline.eval_batches(
        config,
        source,
        batch_size=config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        clips=clips,
        crops=crops,
    )
    for batch in batches:
        if stop():
            raise Interrupted
        yield batch
