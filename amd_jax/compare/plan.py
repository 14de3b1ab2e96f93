"""What a comparison consists of: cells, each one run with its scores, and which others it needs first.

A plan is what a file such as configs/compare_fashion.py returns:

    seeds            one student of each method for each; the teacher has the first
    labels           shares of the training labels that are fine-tuned on
    ablation_labels  the same for the ablations
    base             a whole run config, shared by all
    teacher          what the teacher's run changes in it
    finetune         what fine-tuning changes in it
    methods          name → what the method's run changes in it; a run of no length is the untrained student
    ablations        question → variant → what changes in the method `amd`; no change is `amd` itself
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from amd_jax.config import ConfigError, flat
from amd_jax.validate import validate

TEACHER = "teacher"


# Where things lie may change between two starts of a comparison; what is computed may not.
PLACES = ("data.path", "student.weights", "teacher.weights")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run and its scores; `name` is also its folder in the comparison's workdir."""

    name: str
    config: ConfigDict
    needs: tuple["Cell", ...] = ()

    @property
    def trained(self) -> bool:
        """Whether there is anything to run before the scores."""
        return self.config.steps > 0 or self.config.epochs > 0

    @property
    def fine_tuned(self) -> bool:
        """Scored by its own accuracy; other cells by linear probe and kNN of their frozen encoder."""
        return self.config.method == "finetune"

    @property
    def identity(self) -> dict[str, Any]:
        """All that the result depends on, as JSON gives it back: the config, and what it needs likewise."""
        kept = {name: value for name, value in flat(self.config).items() if name not in PLACES}
        for need in self.needs:
            kept[need.name] = hashlib.sha256(json.dumps(need.identity, sort_keys=True).encode()).hexdigest()
        return json.loads(json.dumps(kept))


def share_name(share: float) -> str:
    """`labels10` for 0.1."""
    return f"labels{100 * share:g}"


def needs_labels(changes: Mapping[str, Any]) -> bool:
    """Whether a method learns from a fine-tuned teacher, and so is another run for each share of labels."""
    return changes.get("method") == "kd"


def pretrained(plan: ConfigDict, method: str, seed: int, share: float | None = None) -> str:
    """The cell where `method` trains an encoder, on a share of the labels if it needs any (None: most)."""
    known = method in plan.methods and needs_labels(plan.methods[method])
    labelled = f"_{share_name(share or max(plan.labels))}" if known else ""
    return f"{method}{labelled}/seed{seed}"


def finetuned(plan: ConfigDict, method: str, seed: int, share: float) -> str:
    """The cell in which that encoder is fine-tuned on a share of the labels."""
    return f"{pretrained(plan, method, seed, share)}/{share_name(share)}"


def variant_name(plan: ConfigDict, question: str, variant: str) -> str:
    """The method of an ablation's variant; the one that changes nothing is `amd`."""
    return f"{question}_{variant}" if plan.ablations[question][variant] else "amd"


def variants(plan: ConfigDict) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and changes of every variant that is not `amd` itself."""
    for question, answers in plan.ablations.items():
        for variant, changes in answers.items():
            if changes:
                yield variant_name(plan, question, variant), changes


def cells(plan: ConfigDict, workdir: Path) -> dict[str, Cell]:
    """Every cell by name, each after those that it needs.

    Raises:
      ConfigError: one of the runs would be refused, or the plan lacks something.
    """
    if not (plan.seeds and plan.labels and plan.methods):
        raise ConfigError("seeds, labels and methods: the plan needs at least one of each")
    if plan.ablations and "amd" not in plan.methods:
        raise ConfigError("ablations change the method 'amd': the plan has none")
    found = {cell.name: cell for cell in _cells(plan, workdir)}
    for cell in found.values():
        _check(cell)
    return found


def _cells(plan: ConfigDict, workdir: Path) -> Iterator[Cell]:
    teacher = Cell(TEACHER, _run(plan, plan.seeds[0], plan.teacher))
    yield teacher
    tuned_teachers = {}
    for share in plan.labels:
        name = f"{TEACHER}/{share_name(share)}"
        start = {"data.share": share, "student.weights": str(workdir / TEACHER)}
        config = _run(plan, plan.seeds[0], plan.teacher, plan.finetune, start)
        tuned_teachers[share] = Cell(name, config, (teacher,))
        yield tuned_teachers[share]

    def students(
        method: str, seed: int, changes: list[Mapping[str, Any]], labels: Iterable[float]
    ) -> Iterator[Cell]:
        """The encoders of a method, and each fine-tuned on the shares of labels it is for."""
        if needs_labels(changes[0]):
            groups: list[tuple[float | None, Cell, Iterable[float]]] = [
                (share, tuned_teachers[share], (share,)) for share in labels
            ]
        else:
            groups = [(None, teacher, labels)]
        for known, its_teacher, shares in groups:
            config = _run(plan, seed, *changes)
            needs: tuple[Cell, ...] = ()
            if config.method in ("amd", "dmae", "kd"):
                needs = (its_teacher,)
                config.teacher.weights = str(workdir / its_teacher.name)
            encoder = Cell(pretrained(plan, method, seed, known), config, needs)
            yield encoder
            for share in shares:
                yield _finetuning(plan, workdir, finetuned(plan, method, seed, share), encoder, share)

    for seed in plan.seeds:
        for method, changes in plan.methods.items():
            yield from students(method, seed, [changes], plan.labels)
    for seed in plan.seeds:
        for name, changes in variants(plan):
            yield from students(name, seed, [plan.methods.amd, changes], plan.ablation_labels)


def _finetuning(plan: ConfigDict, workdir: Path, name: str, encoder: Cell, share: float) -> Cell:
    config = _run(plan, encoder.config.seed, plan.finetune, {"data.share": share})
    if not encoder.trained:  # the same seed draws the same initial weights
        return Cell(name, config)
    config.student.weights = str(workdir / encoder.name)
    return Cell(name, config, (encoder,))


def _run(plan: ConfigDict, seed: int, *changes: Mapping[str, Any]) -> ConfigDict:
    config = plan.base.copy_and_resolve_references()
    for change in changes:
        config.update_from_flattened_dict(flat(change))
    config.seed = seed
    return config


def _check(cell: Cell) -> None:
    """What can be said before the weights exist that the run will start from."""
    if not cell.trained:
        return
    config = cell.config.copy_and_resolve_references()
    config.student.weights = config.teacher.weights = ""
    config.teacher.random = True
    # To ask for the device is to take it from the processes that will need it; a run checks these itself.
    config.model.dtype, config.model.attention = "float32", "xla"
    try:
        validate(config)
    except ConfigError as error:
        raise ConfigError(f"{cell.name}: {error}") from error
