"""What a comparison consists of: cells, each one run with its scores, and which others it needs first.

A plan is what a file such as configs/compare_fashion.py returns:

    seeds            one student of each method for each; the teacher has the first
    labels           shares of the training labels that are fine-tuned on
    base             a whole run config, shared by all
    teacher          what the teacher's run changes in it
    teachers         name → what another teacher's run changes in the teacher's
    finetune         what fine-tuning changes in it
    finetune_on      `labels10` → what fine-tuning on that share changes in fine-tuning
    methods          name → what the method's run changes in it; a run of no length is the untrained student
    ablations        question → variant → what changes in a method's run, and besides
                         of          the method; "amd" if not said
                         finetuning  what changes in fine-tuning
                         taught_by   the name of another teacher
                         after       question.variant, or a method, whose encoder it starts from
                     A variant that changes nothing is the method itself.
    ablation_labels  question → those of `labels` that its variants are fine-tuned on; none if not said
    curves           name of a plot → label → the question whose variants are the points of a line
    scatters         name of a plot → the questions in it, whose variants are points
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from amd_jax.config import flat
from amd_jax.errors import ConfigError, UserError
from amd_jax.methods import METHODS
from amd_jax.train.validate import validate

TEACHER = "teacher"

# Where things lie and how they are compiled may change between two starts; what is computed may not.
NOT_THE_RESULT = ("data.path", "student.weights", "teacher.weights", "model.unroll")
# Keys that are younger than results which somebody may have, at what was done before there were such.
YOUNGER = {
    "data.holdout": 0.0,
    "data.jpeg": "exact",
    "model.residual": "auto",
    "optim.moments": "float32",
    "teacher.dtype": "",
}


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
        method = METHODS[self.config.method]
        return method.labels and not method.teacher

    @property
    def identity(self) -> dict[str, Any]:
        """All that the result depends on, as JSON gives it back: the config, and what it needs likewise."""
        # An empty key asks for nothing, as it was before there was such a key.
        keys = flat(self.config).items()
        kept = {k: v for k, v in keys if k not in NOT_THE_RESULT and v != () and YOUNGER.get(k, ()) != v}
        for need in self.needs:
            kept[need.name] = hashlib.sha256(json.dumps(need.identity, sort_keys=True).encode()).hexdigest()
        return json.loads(json.dumps(kept))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the students of one row of a table come about."""

    name: str
    encoder: str  # name of the recipe that trains their encoder: this one, or one that differs later only
    changes: tuple[Mapping[str, Any], ...]  # in the base config, one after the other
    labels: tuple[float, ...]  # shares that they are fine-tuned on
    most: float  # the largest share that anything is fine-tuned on
    finetuning: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teacher: str = TEACHER  # the cell that teaches it, if any does
    after: "Recipe | None" = None  # whose encoder it starts from

    @property
    def needs_labels(self) -> bool:
        """Whether it learns from a fine-tuned teacher, and so is another run for each share of labels."""
        return METHODS[self._method].teacher == "logits"

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from a teacher at all."""
        return bool(METHODS[self._method].teacher)

    @property
    def _method(self) -> str:
        return next((c["method"] for c in reversed(self.changes) if "method" in c), "amd")

    def pretrained(self, seed: int, share: float | None = None) -> str:
        """The cell of the encoder, trained with a share of the labels if it needs any (None: most)."""
        return f"{self.encoder}{self._labelled(share)}/seed{seed}"

    def finetuned(self, seed: int, share: float) -> str:
        """The cell in which that encoder is fine-tuned on a share of the labels."""
        return f"{self.name}{self._labelled(share)}/seed{seed}/{share_name(share)}"

    def _labelled(self, share: float | None) -> str:
        return f"_{share_name(share or self.most)}" if self.needs_labels else ""


def share_name(share: float) -> str:
    """`labels10` for 0.1."""
    return f"labels{100 * share:g}"


def methods(plan: ConfigDict) -> dict[str, Recipe]:
    """The rows of the first table."""
    return {
        name: Recipe(name, name, (changes,), tuple(plan.labels), max(plan.labels))
        for name, changes in plan.methods.items()
    }


def ablations(plan: ConfigDict) -> dict[str, dict[str, Recipe]]:
    """The rows of each of the others, by question and variant.

    Raises:
      ConfigError: a variant is of a method that the plan does not have.
    """
    known = methods(plan)

    def recipe(question: str, variant: str, changes: ConfigDict) -> Recipe:
        run, name = dict(changes), f"{question}_{variant}"
        method, finetuning = run.pop("of", "amd"), run.pop("finetuning", {})
        teacher, after = run.pop("taught_by", ""), run.pop("after", "")
        if method not in known:
            raise ConfigError(f"ablations.{name} wants the method {method!r}: the plan has none")
        if teacher and teacher not in plan.get("teachers", {}):
            raise ConfigError(f"ablations.{name} wants the teacher {teacher!r}: the plan has none")
        if after and after not in earlier:
            raise ConfigError(f"ablations.{name} comes after {after!r}: nothing above it is called so")
        labels = ablation_labels(plan, question)
        another = run or teacher or after
        return dataclasses.replace(
            known[method],
            name=name if another or finetuning else method,
            encoder=name if another else method,
            changes=(*known[method].changes, run),
            labels=labels,
            most=max(labels, default=known[method].most),
            finetuning=finetuning,
            teacher=teachers_cell(teacher),
            after=earlier[after] if after else None,
        )

    earlier = dict(known)
    found: dict[str, dict[str, Recipe]] = {}
    for question, variants in plan.ablations.items():
        found[question] = {}
        for variant, changes in variants.items():
            found[question][variant] = earlier[f"{question}.{variant}"] = recipe(question, variant, changes)
    return found


def teachers_cell(name: str) -> str:
    return f"{TEACHER}_{name}" if name else TEACHER


def ablation_labels(plan: ConfigDict, question: str) -> tuple[float, ...]:
    """The shares of labels on which the variants of a question are fine-tuned."""
    wanted = plan.ablation_labels.get(question, ())
    return tuple(share for share in plan.labels if share in wanted)


def cells(plan: ConfigDict, workdir: Path) -> dict[str, Cell]:
    """Every cell by name, each after those that it needs.

    Raises:
      ConfigError: one of the runs would be refused, or the plan lacks something.
    """
    if not (plan.seeds and plan.labels and plan.methods):
        raise ConfigError("seeds, labels and methods: the plan needs at least one of each")
    _check_plots(plan)
    found: dict[str, Cell] = {}
    variants = [recipe for question in ablations(plan).values() for recipe in question.values()]
    of_logits = {recipe.teacher for recipe in variants if recipe.needs_labels}
    for cell in _teachers(plan, workdir, of_logits):
        found[cell.name] = cell
    for recipes in (methods(plan).values(), variants):
        for seed in plan.seeds:
            for recipe in recipes:
                for cell in _students(plan, workdir, recipe, seed, found):
                    found.setdefault(cell.name, cell)
    for cell in found.values():
        _check(cell)
    return found


def _teachers(plan: ConfigDict, workdir: Path, of_logits: Container[str]) -> Iterator[Cell]:
    """The teachers; for methods that learn from logits the same fine-tuned on each share of the labels.

    The first one is fine-tuned in any case: what it knows is what students are measured by.
    """
    for name, changes in {"": {}, **plan.get("teachers", {})}.items():
        its, place = dict(changes), teachers_cell(name)
        seed = its.pop("seed", plan.seeds[0])
        teacher = Cell(place, _run(plan, seed, plan.teacher, its))
        yield teacher
        for share in plan.labels if place in of_logits or not name else ():
            start = {"data.share": share, "student.weights": str(workdir / place)}
            config = _run(plan, seed, plan.teacher, *_finetune(plan, share), start)
            yield Cell(f"{place}/{share_name(share)}", config, (teacher,))


def _finetune(plan: ConfigDict, share: float) -> tuple[Mapping[str, Any], ...]:
    return plan.finetune, plan.get("finetune_on", {}).get(share_name(share), {})


def _students(
    plan: ConfigDict, workdir: Path, recipe: Recipe, seed: int, found: Mapping[str, Cell]
) -> Iterator[Cell]:
    """The encoders of a recipe, and each fine-tuned on the shares of labels it is for."""
    known = sorted({*recipe.labels, recipe.most}) if recipe.needs_labels else (None,)
    for share in known:
        encoder = _encoder(plan, workdir, recipe, seed, share, found)
        yield encoder
        for tuned_on in recipe.labels:
            if share in (None, tuned_on):
                yield _finetuning(plan, workdir, recipe, encoder, tuned_on)


def _encoder(
    plan: ConfigDict, workdir: Path, recipe: Recipe, seed: int, share: float | None, found: Mapping[str, Cell]
) -> Cell:
    config, name = _run(plan, seed, *recipe.changes), recipe.pretrained(seed, share)
    needs = []
    if METHODS[config.method].teacher:
        cell = recipe.teacher if share is None else f"{recipe.teacher}/{share_name(share)}"
        config.teacher.weights = str(workdir / cell)
        needs.append(found[cell])
    if recipe.after:
        cell = recipe.after.pretrained(seed)
        config.student.weights = str(workdir / cell)
        needs.append(found[cell])
    return Cell(name, config, tuple(needs))


def _finetuning(plan: ConfigDict, workdir: Path, recipe: Recipe, encoder: Cell, share: float) -> Cell:
    seed = encoder.config.seed
    config = _run(plan, seed, *_finetune(plan, share), recipe.finetuning, {"data.share": share})
    name = recipe.finetuned(seed, share)
    if not encoder.trained:  # the same seed draws the same initial weights
        return Cell(name, config)
    config.student.weights = str(workdir / encoder.name)
    return Cell(name, config, (encoder,))


def _run(plan: ConfigDict, seed: int, *changes: Mapping[str, Any]) -> ConfigDict:
    config = copy.deepcopy(plan.base)  # keys of two types keep both
    for change in changes:
        try:
            config.update_from_flattened_dict(flat(change))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"the plan changes {', '.join(flat(change))}: {error.args[0]}") from error
    config.seed = seed
    return config


def _check_plots(plan: ConfigDict) -> None:
    """What is drawn is asked: plots come after the first run."""
    lines = {name: tuple(questions.values()) for name, questions in plan.get("curves", {}).items()}
    for name, questions in {**lines, **plan.get("scatters", {})}.items():
        for question in questions:
            if question not in plan.ablations:
                raise ConfigError(f"the plot {name} wants the question {question!r}: the plan has none")


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
    except UserError as error:
        raise ConfigError(f"{cell.name}: {error}") from error
