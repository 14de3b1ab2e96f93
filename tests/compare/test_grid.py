"""The cells of a comparison: the same start for all, what each needs, mistakes found before the first."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from amd_jax.compare import grid
from amd_jax.config import flat
from amd_jax.data.sources import make_source
from amd_jax.errors import ConfigError
from amd_jax.steps.tasks import make_task
from configs import compare_fashion, compare_saturation, compare_videos
from tests.runs import step_shapes

WORKDIR = Path("/nowhere")
SATURATION = ("", "parts", "teachers", "kd", "wide", "tune", "smoke")


@pytest.fixture(scope="module")
def plan() -> ConfigDict:
    return compare_fashion.get_config()


@pytest.mark.parametrize(
    "plan",
    [
        *(compare_fashion.get_config(argument) for argument in ("", "tune", "smoke")),
        *(compare_saturation.get_config(argument) for argument in SATURATION),
        *(compare_videos.get_config(argument) for argument in ("", "tune", "smoke")),
    ],
)
def test_every_cell_is_a_valid_run_and_comes_after_what_it_needs(plan: ConfigDict) -> None:
    cells = grid.cells(plan, WORKDIR)
    seen: set[str] = set()
    for name, cell in cells.items():
        assert seen >= {need.name for need in cell.needs}, name
        seen.add(name)


@pytest.mark.parametrize(
    "name", ["teacher", "teacher/labels1", "mae", "dmae75", "dmae98", "amd", "kd_labels1"]
)
def test_every_kind_of_run_has_shapes(plan: ConfigDict, name: str) -> None:
    cell = grid.cells(plan, WORKDIR)[name if name.startswith("teacher") else f"{name}/seed0"]
    config = cell.config.copy_and_resolve_references()
    config.student.weights = config.teacher.weights = ""  # they come from other cells
    step_shapes(config)


def test_a_comparison_from_before_the_teachers_own_pixels_goes_on(plan: ConfigDict) -> None:
    identity = grid.cells(plan, WORKDIR)["amd/seed0"].identity
    assert not {"teacher.mean", "teacher.std", "data.holdout"} & identity.keys()
    changed = compare_fashion.get_config()
    changed.base.teacher.mean = (0.5,)
    assert grid.cells(changed, WORKDIR)["amd/seed0"].identity["teacher.mean"] == [0.5]


def test_every_variant_has_shapes(plan: ConfigDict) -> None:
    cells = grid.cells(plan, WORKDIR)
    for question in grid.ablations(plan).values():
        for recipe in question.values():
            config = cells[recipe.pretrained(0)].config.copy_and_resolve_references()
            config.student.weights = config.teacher.weights = ""
            if config.steps:
                step_shapes(config)


def test_the_size_of_the_whole_comparison(plan: ConfigDict) -> None:
    """For 3 seeds: 6 methods and kd for each of 3 shares, 7 methods fine-tuned on 3 shares, and that twice; 7
    variants of the paper's, 2 trained for longer."""
    assert len(grid.cells(plan, WORKDIR)) == 1 + 3 + 3 * ((6 + 3) + 2 * 7 * 3 + 7 + 2)


def test_methods_differ_in_what_they_say_and_in_nothing_else(plan: ConfigDict) -> None:
    cells = grid.cells(plan, WORKDIR)
    mae, amd = (flat(cells[f"{name}/seed1"].config) for name in ("mae", "amd"))
    different = {name for name in mae if mae[name] != amd[name]}
    assert different == {"method", "teacher.weights", "loss.feature_norm"}
    assert amd["teacher.weights"] == str(WORKDIR / "teacher")


@pytest.mark.parametrize("method", ["mae", "dmae75", "dmae98", "amd", "kd_labels10"])
def test_all_students_start_from_the_encoder_that_scratch_is(plan: ConfigDict, method: str) -> None:
    cells = grid.cells(plan, WORKDIR)

    def encoder(name: str) -> dict[str, jax.Array]:
        config = cells[name].config.copy_and_resolve_references()
        config.data.source = "embedded"
        task = make_task(config, make_source(config.data, "train").num_classes)
        return flat(jax.jit(task.init)(jax.random.key(config.seed))["encoder"])

    scratch, other = encoder("scratch/seed2/labels10"), encoder(f"{method}/seed2")
    for name, value in scratch.items():
        np.testing.assert_array_equal(value, other[name], name)


def test_distillation_of_logits_needs_a_teacher_that_knows_no_more_labels(plan: ConfigDict) -> None:
    cells = grid.cells(plan, WORKDIR)
    assert cells["kd_labels10/seed0"].needs == (cells["teacher/labels10"],)
    assert cells["kd_labels10/seed0/labels10"].needs == (cells["kd_labels10/seed0"],)
    assert cells["teacher/labels10"].config.data.share == 0.1
    assert cells["kd_labels10/seed0"].config.finetune.kd_weight == 1  # no labels but the teacher's


def test_fine_tuning_from_scratch_loads_nothing(plan: ConfigDict) -> None:
    cell = grid.cells(plan, WORKDIR)["scratch/seed0/labels1"]
    assert (cell.config.student.weights, cell.needs) == ("", ())
    assert not grid.cells(plan, WORKDIR)["scratch/seed0"].trained


def test_a_result_is_another_where_anything_that_it_came_from_is(plan: ConfigDict) -> None:
    before, scanned = grid.cells(plan, WORKDIR), plan.copy_and_resolve_references()
    scanned.base.model.unroll = not plan.base.model.unroll  # the same sums in another program
    elsewhere = grid.cells(scanned, Path("/somewhere/else"))
    changed = plan.copy_and_resolve_references()
    changed.teacher.optim.base_lr = 1e-3
    after = grid.cells(changed, WORKDIR)
    different = {name for name in before if before[name].identity != after[name].identity}

    def of_teacher(cell: grid.Cell) -> bool:
        return cell.name == "teacher" or any(of_teacher(need) for need in cell.needs)

    assert different == {name for name, cell in before.items() if of_teacher(cell)}
    assert {"amd/seed2/labels1", "kd_labels1/seed0"} < different
    assert not {"mae/seed0", "scratch/seed1/labels100"} & different
    assert all(before[name].identity == elsewhere[name].identity for name in before)


def test_a_variant_that_changes_nothing_is_its_method(plan: ConfigDict) -> None:
    found = grid.ablations(plan)
    assert found["alignment"]["both"].name == "amd"
    assert found["alignment"]["direct"].name == "alignment_direct"
    assert found["compute_of_amd"]["amd_800_steps"].name == "amd"


def test_a_variant_of_fine_tuning_shares_the_encoder_and_nothing_else_changes(plan: ConfigDict) -> None:
    cells = grid.cells(plan, WORKDIR)
    shorter, usual = (cells[f"{name}/seed1/labels10"] for name in ("fine_tuned_for_250_steps_mae", "mae"))
    assert shorter.needs == usual.needs == (cells["mae/seed1"],)
    before, after = flat(usual.config), flat(shorter.config)
    changed = {name: value for name, value in after.items() if value != before[name]}
    assert changed == {"steps": 250, "optim.warmup_steps": 25}


def test_variants_are_fine_tuned_on_what_their_question_says_of_all_labels(plan: ConfigDict) -> None:
    plan = plan.copy_and_resolve_references()
    plan.labels = (0.01, 1.0)
    cells = grid.cells(plan, WORKDIR)
    assert {name for name in cells if "250_steps_mae/seed0" in name} == {
        f"fine_tuned_for_250_steps_mae/seed0/{share}" for share in ("labels1", "labels100")
    }


WRONG = [
    ({"base.data.image_size": 30}, "teacher: data.image_size=30"),
    ({"base.mask.student_visible": 50}, "50 of 49"),
    ({"base.optim.b2": 1.5}, "optim.b2=1.5"),
    ({"seeds": ()}, "at least one"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_run_that_would_be_refused_is_found_before_the_first_one(changes: dict, words: str) -> None:
    wrong = compare_fashion.get_config()
    wrong.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=words):
        grid.cells(wrong, WORKDIR)


@pytest.mark.parametrize("change", [{"losss": {"align": "l1"}}, {"steps": "many"}])
def test_a_change_that_no_run_knows_is_named(change: dict) -> None:
    wrong = compare_fashion.get_config()
    wrong.ablations = {"what": {"if": change}}
    with pytest.raises(ConfigError, match=f"the plan changes {next(iter(flat(change)))}: "):
        grid.cells(wrong, WORKDIR)


@pytest.mark.parametrize("lacking", ["amd", "mae"])
def test_ablations_without_the_method_they_change(lacking: str) -> None:
    wrong = compare_fashion.get_config()
    del wrong.methods[lacking]
    with pytest.raises(ConfigError, match=f"wants the method '{lacking}': the plan has none"):
        grid.cells(wrong, WORKDIR)


def test_another_teacher_is_another_cell_and_is_what_its_students_need() -> None:
    cells = grid.cells(compare_saturation.get_config("teachers"), WORKDIR)
    teacher, other, short = (cells[f"teacher{name}"] for name in ("", "_of_another_seed", "_after_3_epochs"))
    assert (teacher.config.seed, other.config.seed, short.config.seed) == (0, 100, 0)
    assert short.config.steps == teacher.config.steps // 10
    student = cells["teachers_30_epochs_other_seed/seed1"]
    assert student.needs == (other,)
    assert student.config.teacher.weights == str(WORKDIR / "teacher_of_another_seed")
    assert "teacher_of_another_seed/labels1" not in cells  # nobody learns from its logits


def test_a_run_after_another_starts_from_its_encoder() -> None:
    cells = grid.cells(compare_saturation.get_config("kd"), WORKDIR)
    before = cells["half_of_amd_5_epochs/seed2"]
    after = cells["compute_of_amd_amd_5_epochs_then_kd_labels1/seed2"]
    assert after.needs == (cells["teacher/labels1"], before)
    assert after.config.student.weights == str(WORKDIR / before.name)


@pytest.mark.parametrize("argument", ["parts", "teachers", "kd"])
def test_the_long_plans_share_what_they_have_in_common(argument: str) -> None:
    whole, other = (grid.cells(compare_saturation.get_config(part), WORKDIR) for part in ("", argument))
    common = whole.keys() & other.keys()
    assert {"teacher", "amd/seed2", "amd/seed2/labels1"} <= common
    assert all(whole[name].identity == other[name].identity for name in common)


def test_each_share_of_the_labels_is_learned_for_as_long_as_the_plan_says() -> None:
    cells = grid.cells(compare_saturation.get_config(), WORKDIR)
    found = {share: cells[f"amd/seed0/{share}"].config.steps for share in compare_saturation.FINETUNING}
    assert found == compare_saturation.FINETUNING
    assert cells["amd/seed0/labels1"].config.optim.warmup_steps == 105


@pytest.mark.parametrize("wrong", [{"taught_by": "nobody"}, {"after": "mae.longer"}, {"of": "nothing"}])
def test_a_plan_that_names_what_is_not_there_is_refused(wrong: dict[str, str]) -> None:
    plan = compare_saturation.get_config("smoke")
    plan.ablations.teachers.other_seed.update(wrong)
    with pytest.raises(ConfigError, match=next(iter(wrong.values()))):
        grid.cells(plan, WORKDIR)


@pytest.mark.parametrize("question", ["teachers", "amd_by_epochs"])
def test_a_plot_of_what_is_not_asked_is_refused_before_anything_runs(question: str) -> None:
    plan = compare_saturation.get_config("smoke")
    del plan.ablations[question]
    with pytest.raises(ConfigError, match=f"the plot .* wants the question '{question}'"):
        grid.cells(plan, WORKDIR)


def test_the_control_of_the_videos_sees_one_frame_and_is_otherwise_fine_tuned_alike() -> None:
    cells = grid.cells(compare_videos.get_config(), WORKDIR)
    whole, frame = (flat(cells[f"{of}/seed0/labels0.25"].config) for of in ("scratch", "one_frame_scratch"))
    different = {name: frame[name] for name in whole if whole[name] != frame[name]}
    assert different == {"data.frames": 1, "model.tubelet": 1}
    step_shapes(cells["one_frame_scratch/seed0/labels0.25"].config)
