"""docs/quickstart.ipynb runs from its first cell to its last, and what it shows came from running it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.runs import ROOT

NOTEBOOK = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)


@pytest.mark.slow
def test_the_quickstart_runs_and_leaves_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WORK": str(tmp_path),
        "XLA_FLAGS": "",
    }.items():  # as on one device, hundreds of steps
        monkeypatch.setenv(name, value)
    notebook = NOTEBOOK.copy()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    printed = [out["text"] for cell in notebook.cells for out in cell.get("outputs", []) if "text" in out]
    (right,) = [line for text in printed for line in text.splitlines() if line.endswith("are right")]
    assert int(right.split()[0]) > 100  # of 200; a tenth by chance
    for name in ("page.html", "features.parquet", "timm/model.safetensors"):
        assert (tmp_path / name).stat().st_size > 0


def test_its_outputs_are_kept_for_readers_without_errors() -> None:
    cells = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
    kinds = {out.output_type for cell in cells for out in cell.outputs}
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "error" not in kinds
    assert sum("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs) == 2
