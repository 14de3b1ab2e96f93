"""Tables and plot: the statistics they claim, and what is missing said."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from PIL import Image

from amd_jax.compare import grid, plots, report, scores
from configs import compare_fashion, compare_saturation


@pytest.fixture
def plan() -> ConfigDict:
    made = compare_fashion.get_config()
    made.labels = (1.0,)
    return made


def result(probe: float, knn: float = 70.0) -> dict:
    return {"probe_top1": probe, "knn_top1": knn, "tflop": 1.5, "seconds": 60.0, "setting": "here"}


def results() -> dict[str, dict]:
    found = {f"amd/seed{s}": result(80.0 + s) for s in (0, 1, 2)}
    found |= {f"mae/seed{s}": result(78.0 + 2 * s) for s in (0, 1)}
    return found | {"amd/seed0/labels100": result(0) | {"eval_top1": 90.0}, "teacher": result(85)}


def rows(plan: ConfigDict, tmp_path: Path) -> dict[str, list[str]]:
    report.write(plan, results(), tmp_path)
    lines = (tmp_path / "results.md").read_text().splitlines()
    split = [[text.strip() for text in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    return {name: scores for name, *scores in reversed(split) if name}  # of several tables, the first


def test_a_row_is_mean_and_sample_deviation_and_says_how_many_seeds_are_there(
    plan: ConfigDict, tmp_path: Path
) -> None:
    found = rows(plan, tmp_path)
    assert found["amd"] == ["81.00 ± 1.00", "70.00 ± 0.00", "90.00 (1 of 3 seeds)", "1.50", "60"]
    assert found["mae"][0] == "79.00 ± 1.41 (2 of 3 seeds)"
    assert found["kd"] == ["–"] * 5
    assert found["*teacher*"] == ["85.00", "70.00", "–", "1.50", "60"]
    assert json.loads((tmp_path / "results.json").read_text()) == results()


def test_differences_are_taken_seed_by_seed(plan: ConfigDict, tmp_path: Path) -> None:
    # Seeds 0 and 1 alone have both: 80 - 78 and 81 - 80.
    assert rows(plan, tmp_path)["amd − mae"][0] == "+1.50 ± 0.71 (2 of 3 seeds)"


def test_an_ablation_shows_amd_among_its_variants(plan: ConfigDict, tmp_path: Path) -> None:
    found = rows(plan, tmp_path)
    assert found["both (amd)"][0] == "81.00 ± 1.00"
    assert found["direct"][0] == "–"


def test_the_plot_is_a_picture_even_where_scores_are_missing(plan: ConfigDict, tmp_path: Path) -> None:
    plots.scores_by_method(plan, results(), tmp_path)
    with Image.open(tmp_path / "results.png") as picture:
        assert min(picture.size) > 200


def test_curves_and_scatters_are_of_what_was_spent_and_scored(tmp_path: Path) -> None:
    saturation = compare_saturation.get_config("smoke")
    saturation.seeds, saturation.labels = (0, 1), (0.1, 1.0)
    found = {
        "teacher": result(85) | {"tflop": 20.0},
        **{f"amd/seed{s}": result(80.0 + s) | {"steps": 10} for s in (0, 1)},
        **{f"amd_by_epochs_3_epochs/seed{s}": result(84.0) | {"steps": 20, "tflop": 3.0} for s in (0, 1)},
        **{f"kd_labels100/seed{s}": result(70.0) | {"steps": 10} for s in (0, 1)},
        **{f"teachers_then_kd_labels10/seed{s}": result(82.0) | {"steps": 20, "tflop": 6.0} for s in (0, 1)},
    }
    known = grid.ablations(saturation)
    short, long = known["amd_by_epochs"].values()
    assert scores.cost(saturation, short, found) == (10, 1.5, 60.0, 20.0)
    assert scores.cost(saturation, long, found) == (20, 3.0, 60.0, 20.0)
    # What came before is paid for as well; the same teacher taught both.
    assert scores.cost(saturation, known["teachers"]["then_kd"], found) == (30, 7.5, 120.0, 20.0)
    assert scores.cost(saturation, known["mae_by_epochs"]["3_epochs"], found) is None
    for draw, name in ((plots.curves, "curves.png"), (plots.scatters, "asymmetry.png")):
        draw(saturation, found, tmp_path)
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200


def test_variants_of_equal_cost_stand_side_by_side_others_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    parts = compare_saturation.get_config("parts")
    found = {"teacher": result(85)}
    for variant, tflop in (("amd", 30.5), ("features_layernorm", 30.4), ("alignment_direct", 21.0)):
        found |= {f"{variant}/seed{s}": result(80.0 + s) | {"steps": 10, "tflop": tflop} for s in (0, 1)}
    plots.scatters(parts, found, Path())
    (figure,) = drawn
    told = {axis.get_title().split(":")[0]: axis for axis in figure.axes if "probe" in axis.get_title()}
    assert told["alignment"].get_xlabel() == "TFLOP"
    assert told["features"].get_xlabel() == "30.5 TFLOP each"
    assert [text.get_text() for text in told["features"].get_xticklabels()] == ["as they are", "layernorm"]
    # "both" is the third variant, and "generative", the second, is not there.
    assert [line.get_color() for line, *_ in told["alignment"].containers] == ["C0", "C2"]
