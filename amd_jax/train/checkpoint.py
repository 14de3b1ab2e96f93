"""Checkpoints through orbax: parameters, optimiser state and data position in one step directory.

What lies where is said in `workdir.py`. A step directory appears under its name only when it is whole, so a
killed run leaves the one before it; beside its parts lie checksums of their files. In a bucket, which cannot
rename, a step is whole once orbax has put its last file there.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
from logging import LogRecord, getLogger
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from amd_jax import buckets, checksums, exits
from amd_jax.errors import RunError
from amd_jax.processes import agreed
from amd_jax.steps.train_state import TrainState
from amd_jax.train.throughput import format_bytes
from amd_jax.workdir import FOLDER, first_line, half_written, saved_steps


class NotSavedError(RuntimeError):
    """A state that should be on disk is not.

    Attributes:
      alone: whether the other processes may not know.
    """

    exit_code = exits.UNSAVED

    def __init__(self, message: str, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone


class _Manager(ocp.CheckpointManager):
    """Leaves preemption to the loop: each question about it counts for where all processes stop."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run; saving returns at once and goes on in the background.

    Nothing is written, and no directory made, before the first save. A save that fails, as on a full disk, is
    told and what it wrote removed; what comes late goes with the next save, which tries again, or at the end.
    Older ones go only when a newer one is whole.

    Attributes:
      unsaved: why the last state that was to be saved is not on disk; "" when it is.
    """

    def __init__(self, workdir: str, keep: int) -> None:
        self.folder = buckets.absolute(buckets.place(workdir)) / FOLDER
        self.unsaved = ""
        self._keep = keep
        self._opened: _Manager | None = None
        self._saving: int | None = None
        self._newest: int | None = None  # that this process saved or found whole
        self._need = 0  # bytes
        self._failures = buckets.failures(self.folder)

    def latest(self) -> int | None:
        """The newest step there is, or None."""
        try:
            return max(saved_steps(self.folder), default=None)
        except self._failures:  # a bucket that is out of reach
            return self._newest

    def newest_whole(self, set_aside: bool) -> int:
        """The newest step whose files are as they were written, or 0 where none was saved; tells of others.

        Args:
          set_aside: rename newer, damaged steps, so that they can be saved again. One process does it.

        Raises:
          RunError: all are damaged; nothing was renamed.
        """
        step = self._look_for_whole(set_aside) if jax.process_index() == 0 else 0
        step = agreed(step)  # the others wait here until process 0 has renamed
        self._newest = step or None
        return step

    def save(self, state: TrainState, step: int, position: dict[str, Any]) -> None:
        """Start saving; `position` is the data position (plain JSON).

        With several processes, one that cannot write, although the disk had room when the save began, ends
        with NotSavedError when it next waits for the save.
        """
        self.wait()
        self._clear_half_written()  # before the room is measured
        self._need = sum(x.nbytes for x in jax.tree.leaves(state))
        if not agreed(int(self._need <= self._free())):  # by process 0, so that no other begins
            self._note_unsaved(step, os.strerror(errno.ENOSPC))
            return
        items = {name: ocp.args.StandardSave(part) for name, part in _items(state).items()}
        items["data"] = ocp.args.JsonSave(position)
        self._saving = step
        try:
            self._manager().save(step, args=ocp.args.Composite(**items), force=True)
        except self._failures as error:
            self._failed(error)

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """The state and data position of `step`, placed as the shardings in `abstract` say.

        The mesh may differ from the one that saved.

        Raises:
          RunError: the checkpoint holds other parameters than this config builds.
        """
        items = {name: ocp.args.StandardRestore(part) for name, part in _items(abstract).items()}
        items["data"] = ocp.args.JsonRestore()
        folder = self.folder / str(step)
        try:
            out = self._manager().restore(step, args=ocp.args.Composite(**items))
        except jax.errors.JaxRuntimeError:
            raise  # no memory for it
        except Exception as error:  # damage has been looked for; orbax raises many kinds for the rest
            known = checksums.exist(folder)
            if known and not isinstance(error, ValueError | KeyError | TypeError):
                raise
            damaged = "" if known else ", or is damaged: it has no checksums to tell"
            raise RunError(
                f"{folder} does not fit this config ({first_line(error)}){damaged}; "
                "continue with the config that wrote it, or start in another workdir"
            ) from error
        o = out.optimizer
        return TrainState(o["step"], out.params, o["state"], out["ema"] if abstract.ema else {}), out.data

    def wait(self) -> None:
        """Returns once what was being saved is on disk, or is known not to be; see `unsaved`."""
        if self._saving is None:
            return
        try:
            self._manager().wait_until_finished()
        except self._failures as error:
            self._failed(error)
        else:
            self._newest, self._saving, self.unsaved = self._saving, None, ""

    def close(self) -> None:
        """Waits and frees the background threads."""
        self.wait()
        if self._opened is not None:
            self._opened.close()
        if self._need:  # it has saved
            self._clear_half_written()

    def _manager(self) -> _Manager:
        """Made at the first use."""
        if self._opened is None:
            for logger in (logging.get_absl_logger(), getLogger("asyncio")):
                logger.addFilter(_is_not_orbaxs_traceback)
            background = ocp.options.AsyncOptions(
                post_finalization_callback=self._add_checksums, barrier_sync_fn=_meet_unless_failed
            )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, step_prefix=None, async_options=background
            )
            self._opened = _Manager(self.folder, options=options)
        return self._opened

    def _add_checksums(self) -> None:
        """Process 0 calls it when all files of a step are there and the step has not got its name yet."""
        if buckets.is_url(self.folder):
            folder = self.folder / str(self._saving)
        else:
            (folder,) = (p for p in half_written(self.folder) if p.name.startswith(f"{self._saving}."))
        checksums.write(folder)

    def _free(self) -> int:
        if buckets.is_url(self.folder):
            return sys.maxsize
        usage = shutil.disk_usage(next(p for p in (self.folder, *self.folder.parents) if p.is_dir()))
        return usage.free if usage.total else sys.maxsize  # some network file systems do not say

    def _failed(self, error: Exception) -> None:
        """A save that had begun: removes what it left."""
        assert self._saving is not None
        step, self._saving = self._saving, None
        if jax.process_count() == 1 and self._opened is not None:
            # It still writes other arrays, remembers the step, and may tell of it at the next one.
            with contextlib.suppress(*self._failures):
                self._opened.close()
            self._opened = None
        self._clear_half_written()
        self._note_unsaved(step, (buckets.reason if buckets.is_url(self.folder) else _reason)(error))
        if jax.process_count() > 1:  # the others are waiting for it somewhere else by now
            raise NotSavedError(self.unsaved, alone=True) from error

    def _note_unsaved(self, step: int, why: str) -> None:
        self.unsaved = f"the checkpoint of step {step} could not be saved ({why})"
        if buckets.is_url(self.folder):
            self.unsaved += f" in {self.folder}"
        else:
            free = f"{format_bytes(self._free())} are free in {self.folder}"
            self.unsaved += f": a checkpoint takes more than {format_bytes(self._need)}, {free}"
        if jax.process_index() == 0:
            logging.warning(self.unsaved)

    def _clear_half_written(self) -> None:
        """A failed save may still write files for a moment after it has been told; they go the next time."""
        if jax.process_index() == 0:
            with contextlib.suppress(*self._failures):
                for folder in half_written(self.folder):
                    _remove(folder)

    def _look_for_whole(self, set_aside: bool) -> int:
        damaged: dict[int, str] = {}
        whole = 0
        for step in reversed(saved_steps(self.folder)):
            if not (what := checksums.damage(self.folder / str(step))):
                whole = step
                break
            damaged[step] = what
        if damaged and not whole:
            told = "; ".join(f"step {step}: {what}" for step, what in damaged.items())
            raise RunError(
                f"{self.folder}: every checkpoint is damaged ({told}); restore one from a copy, or start in "
                "another workdir"
            )
        for step, what in damaged.items():
            kept = f"kept as {_set_aside(self.folder / str(step))}" if set_aside else "left as it is"
            logging.warning(
                "%s is damaged (%s): %s; step %d is whole and used instead",
                self.folder / str(step), what, kept, whole,
            )  # fmt: skip
        return whole


def _meet_unless_failed(*, key: str, timeout_ms: int) -> None:
    """Waits for the other processes, unless it is an error that brings this one here.

    They are waiting at another barrier then: with orbax's own, all would for its time limit (20 minutes), and
    the error be forgotten.
    """
    if error := sys.exception():
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _is_not_orbaxs_traceback(record: LogRecord) -> bool:
    """A failed save is told in one line; orbax, and asyncio for it, tell of it several times over."""
    return not (
        record.exc_info and ("orbax" in Path(record.pathname).parts or "orbax" in record.getMessage())
    )


def _set_aside(folder: Path) -> Path:
    """Renames a damaged step to a name that is no step."""
    names = (
        folder.with_name(f"{folder.name}.damaged{suffix}")
        for suffix in ("", *(f"-{n}" for n in range(2, 99)))
    )
    where = next(name for name in names if not name.exists())
    failures = buckets.failures(folder)
    try:
        return folder.rename(where)
    except failures as error:
        why = f"is damaged and cannot be renamed ({_reason(error)}); move it away"
        raise RunError(f"{folder} {why}") from error


def _remove(folder: Path) -> None:
    if buckets.is_url(folder):
        buckets.filesystem().rm(str(folder), recursive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _reason(error: Exception) -> str:
    """Why a write failed, in the system's words where it says so."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return first_line(error)


def _items(state: TrainState) -> dict[str, Any]:
    """What lies in a directory of its own."""
    items = {"params": state.params, "optimizer": {"step": state.step, "state": state.opt_state}}
    return items | {"ema": state.ema} if state.ema else items
