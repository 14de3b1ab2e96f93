"""What the documents point to exists: files, headings, configs, modules and config keys."""

import re
from pathlib import Path

import pytest

from amd_jax.compare.__main__ import PARTS
from amd_jax.config import KEYS
from tests.runs import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Files, and folders with a "/"; what stands below another folder is not ours.
PATH = re.compile(
    r"(?<![\w/.])((?:amd_jax|configs|launch|tests|docs)/[\w/.-]*[\w/])"
)  # files, and folders with a "/"
KEY = re.compile(r"--config\.(\w+(?:\.\w+)*)")
PLACEHOLDERS = {"NAME", "KEY"}


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them: lower case, spaces as hyphens, no punctuation."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path) -> list[str]:
    """Relative links of `page` to a file or heading that does not exist."""
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        assert not dead_links(page)

    def test_paths_exist(self, page: Path) -> None:
        named = {path for path in PATH.findall(page.read_text()) if Path(path).stem not in PLACEHOLDERS}
        assert not [path for path in named if not (ROOT / path).exists()]

    def test_config_keys_exist(self, page: Path) -> None:
        named = {key for key in KEY.findall(page.read_text()) if key.split(".")[-1] not in PLACEHOLDERS}
        assert not named - KEYS.keys() - set(PARTS)


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: `two`, three\n[a](#one-two-three) [b](page.md#four) [c](no.md) [d](https://x.org)\n"
    )
    assert dead_links(page) == ["page.md#four", "no.md"]


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 170
