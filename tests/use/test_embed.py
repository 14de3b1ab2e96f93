"""`embed` writes the features of every file that can be read, and goes on where it was stopped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

import amd_jax
from amd_jax.use import embed, features_file
from amd_jax.use.model import Model
from tests.convert.conftest import as_ours, image_arch

FILES = 9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures in two folders, one of which is damaged."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        folder = tmp_path / "data" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    whole = (tmp_path / "data" / "cats" / "3.png").read_bytes()
    (tmp_path / "data" / "cats" / "3.png").write_bytes(whole[:100])
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return str(as_ours(image_arch(), tmp_path / "weights"))


def start(weights: str, data: Path, out: Path, *more: str) -> int:
    """The command, with parts of two batches of two files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "PART", 2)
        return embed.main([weights, f"--data={data}", f"--out={out}", "--batch_size=2", *more])


def read(out: Path) -> dict[str, Any]:
    """The columns."""
    if out.suffix == ".npz":
        return dict(np.load(out))
    table = parquet.read_table(out)
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    return columns | {"features": columns["features"].astype(np.float32)}


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_each_whole_file_has_a_row_and_damaged_ones_are_counted(
    suffix: str, weights: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out.{suffix}"
    assert start(weights, data, out) == 0
    told = capsys.readouterr()
    assert "8 features of width 32; 1 of 9 files could not be read" in told.out
    assert "left out: " in told.err
    assert "3.png" in told.err
    found = read(out)
    names = sorted(f"{p.parent.name}/{p.name}" for p in data.glob("*/*"))
    assert found["name"].tolist() == [name for name in names if name != "cats/3.png"]
    assert found["label"].tolist() == [name.split("/")[0] for name in found["name"]]
    want = amd_jax.load(weights).embed([data / name for name in found["name"]])
    np.testing.assert_allclose(found["features"], want, rtol=1e-4, atol=1e-5)
    assert not Path(f"{out}.parts").exists()


def test_a_list_says_which_files_and_labels(weights: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("dogs/0.png 7\ncats/1.png 3\n")
    out = tmp_path / "out.npz"
    assert start(weights, tmp_path / "list.txt", out, f"--root={data}") == 0
    found = read(out)
    assert found["name"].tolist() == ["dogs/0.png", "cats/1.png"]
    assert found["label"].tolist() == ["7", "3"]


def test_it_goes_on_with_the_part_that_was_not_done(
    weights: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start(weights, data, tmp_path / "whole.npz") == 0
    out, runs = tmp_path / "out.npz", []
    real = Model.run

    def interrupted(self: Model, what: str, views: np.ndarray) -> np.ndarray:
        runs.append(len(views))
        if len(runs) == 4:
            raise KeyboardInterrupt
        return real(self, what, views)

    monkeypatch.setattr(Model, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(weights, data, out)
    assert not out.exists()
    assert start(weights, data, out) == 0
    assert sum(runs[4:]) == FILES - 4  # the first part has four files, one of them damaged
    for name, column in read(tmp_path / "whole.npz").items():
        np.testing.assert_array_equal(read(out)[name], column)


def test_parts_of_other_options_are_not_mixed_in(
    weights: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    features_file.FeaturesFile(str(out), {"weights": 1})
    assert start(weights, data, out) == 2
    assert "remove it to begin anew" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.npz.parts" / "plan.json").read_text()) == {"weights": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"out": "out.csv"}, "it must end in .parquet or .npz"),
        ({"data": "none"}, "none: cannot be read"),
        ({"data": "empty"}, "no .jpg/.jpeg/.png/.webp files in it"),
        ({"data": "bad"}, "none of 1 files could be read"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(
    change: dict[str, str],
    words: str,
    weights: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no picture")
    out = tmp_path / change.get("out", "out.npz")
    assert start(weights, tmp_path / change.get("data", "data"), out) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert words in last
    assert not out.exists()
