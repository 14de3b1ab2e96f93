"""What a run tells its reader: on the terminal, in metrics files, as pictures. Process 0 speaks for all."""

from typing import Any

import jax
from absl import logging
from clu import parameter_overview

from amd_jax.buckets import is_url
from amd_jax.config import flat
from amd_jax.evals import pictures
from amd_jax.evals.evaluation import Picture
from amd_jax.train import throughput
from amd_jax.train.metrics import make_writer
from amd_jax.train.mirror import Mirror
from amd_jax.train.setup import Run
from amd_jax.workdir import METRICS


class Reporter:
    """Does nothing in processes other than the first.

    Attributes:
      folder: where files are written: the workdir, or what is copied there where that is in a bucket.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        chief = jax.process_index() == 0
        self._mirror = Mirror(run.workdir, (METRICS,)) if chief and is_url(run.workdir) else None
        self.folder = self._mirror.folder if self._mirror else run.workdir
        self._writer = make_writer(str(self.folder), resume_step=run.start_step) if chief else None

    def introduce(self) -> None:
        """What a reader of the log wants to know first."""
        if self._writer is None:
            return
        run, program = self._run, self._run.program
        config = run.config
        overview = parameter_overview.get_parameter_overview(run.state.params, include_stats=False)
        self._writer.write_texts(run.start_step, {"parameters": f"```\n{overview}\n```"})
        self._writer.write_hparams(flat(config))
        print(overview)
        count = parameter_overview.count_parameters(run.state.params)
        mesh = ", ".join(f"{name}={size}" for name, size in program.mesh.shape.items())
        memory = f", {run.peak_memory / 2**30:.2f} GiB a device" if run.peak_memory else ""
        print(
            f"{config.method}: {count / 1e6:.1f} M trained parameters, {len(run.source)} examples, "
            f"{program.total_steps} steps of {config.batch_size} on {program.mesh.size} "
            f"{program.mesh.devices.flat[0].device_kind} ({mesh}), "
            f"{program.flops_per_step / 1e9:.1f} GFLOP a step{memory}"
        )
        if run.start_step >= program.total_steps:
            print(f"{run.workdir} is already at step {run.start_step}: nothing to do")

    def scalars(self, step: int, scalars: dict[str, Any], eta: float | None = None) -> None:
        """A line of metrics; `eta` in seconds."""
        if self._writer is not None:
            self._writer.write_scalars(step, scalars)
            line = throughput.progress_line(step, self._run.program.total_steps, scalars, eta)
            print(line, flush=True)

    def picture(self, step: int, picture: Picture) -> None:
        """A picture as files and, its still part, for TensorBoard."""
        if self._writer is None:
            return
        path = self.folder / "pictures" / f"step_{step:08d}"
        try:
            pictures.save(path, picture)
        except OSError as error:  # a full disk costs a picture, not the run
            logging.warning("%s: not written (%s)", path, error)
        self._writer.write_images(step, {"reconstruction": picture.still[None]})

    def upload(self) -> None:
        """Brings what was reported so far to where the checkpoints are, if that is a bucket."""
        if self._mirror is not None and self._writer is not None:
            self._writer.flush()
            self._mirror.send()

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._writer.close()
        if self._mirror is not None:
            self._mirror.close()
