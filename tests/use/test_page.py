"""The page of `predict`, in a real browser: it shows every picture and fits a phone, and fetches nothing."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amd_jax.use.page import Card, page
from tests.runs import ROOT

BROWSER = ROOT / ".venv" / "browser"  # launch/test.sh installs it where there is npm
CARDS = [
    Card("cat & <b>dog</b>.jpg", np.full((20, 30, 3), 200, np.uint8), [("<i>cat</i>", 0.75), ("dog", 0.25)]),
    Card("a-very-long-name-" * 12 + ".png", np.zeros((16, 16, 1), np.uint8), [("a class of " * 9, 1.0)]),
]


def look(folder: Path, width: int) -> dict[str, Any]:
    """What a Chromium of this width makes of the page."""
    (folder / "page.html").write_text(page("Runs & <more>", ["of two classes"], CARDS))
    picture = folder / "seen.png"
    command = ["node", str(ROOT / "tests" / "browser" / "look.mjs"), (folder / "page.html").as_uri()]
    done = subprocess.run(
        [*command, str(picture), str(width), "700"], cwd=BROWSER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 1000
    return json.loads(done.stdout)


@pytest.mark.skipif(
    not (BROWSER / "node_modules").is_dir() or shutil.which("node") is None,
    reason="no Chromium: see launch/test.sh",
)
def test_a_browser_shows_all_of_it_and_fetches_nothing(tmp_path: Path) -> None:
    """On a phone and on a desk, one after the other: the first unpacks the browser."""
    for width in (360, 1000):
        seen = look(tmp_path, width)
        assert seen["title"] == "Runs & <more>"
        assert seen["captions"] == [card.name for card in CARDS]
        assert [row.split("\t")[0].strip() for row in seen["rows"]] == [
            "<i>cat</i>",
            "dog",
            ("a class of " * 9).strip(),
        ]
        assert [natural for *natural, _ in seen["pictures"]] == [[30, 20], [16, 16]]
        assert all(shown > 200 for *_, shown in seen["pictures"])
        assert [value for value, _ in seen["bars"]] == [0.75, 0.25, 1.0]
        assert all(long > 20 for _, long in seen["bars"])
        assert seen["wide"] <= width
        assert seen["complaints"] == []
        assert all(url.startswith(("file:", "data:")) for url in seen["requests"])
