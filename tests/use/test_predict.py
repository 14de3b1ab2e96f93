"""`predict` tells the likeliest classes of files, and writes a page that needs nothing else."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import amd_jax
from amd_jax.convert.files.stated import Stated
from amd_jax.use import predict
from tests.convert.conftest import as_ours, image_arch

NAMES = ("ant & <b>", "bee", "cat", "dog", "elk")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    said = Stated((0.5,) * 3, (0.5,) * 3, classes=NAMES)
    return str(as_ours(image_arch(classes=5), tmp_path / "weights", said=said))


def pictures(folder: Path, number: int) -> list[str]:
    """Files, of which one has a name that HTML would take for a tag."""
    rng = np.random.default_rng(0)
    files = [folder / (f"<i>{i}.png" if i == 1 else f"{i}.png") for i in range(number)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    return [str(file) for file in files]


class Page(HTMLParser):
    """What a page shows, and what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_likeliest_classes_come_first(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = pictures(tmp_path, 3)
    assert predict.main([weights, *files, "--top=2"]) == 0
    chances = amd_jax.load(weights).classify(files)
    for line, file, row in zip(capsys.readouterr().out.splitlines(), files, chances, strict=True):
        first, second = np.argsort(-row)[:2]
        want = f"{NAMES[first]} {100 * row[first]:.1f} %, {NAMES[second]} {100 * row[second]:.1f} %"
        assert line == f"{file}: {want}"


def test_the_page_holds_the_pictures_and_nothing_in_it_runs(weights: str, tmp_path: Path) -> None:
    files = pictures(tmp_path, 3)
    assert predict.main([weights, *files, f"--html={tmp_path / 'page.html'}"]) == 0
    page = Page((tmp_path / "page.html").read_text())
    shown = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [attrs["alt"] for attrs in shown] == files
    for attrs, file in zip(shown, files, strict=True):
        data = base64.b64decode(str(attrs["src"]).removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(data)) as there, Image.open(file) as wanted:
            np.testing.assert_array_equal(np.asarray(there), np.asarray(wanted))
    assert not {"script", "link", "i", "b"} & {tag for tag, _ in page.tags}
    assert page.words.count(NAMES[0]) == 3


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_not_lost(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (good,) = pictures(tmp_path, 1)
    assert predict.main([weights, str(tmp_path / "none.png"), good]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{good}: ")
    assert "left out" in told.err
    assert predict.main([weights, str(tmp_path / "none.png")]) == 2
    assert "none of 1 files could be read" in capsys.readouterr().err


def test_weights_without_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = as_ours(image_arch(), tmp_path / "encoder")
    assert predict.main([str(src), "x.png"]) == 2
    assert "fine-tune" in capsys.readouterr().err
