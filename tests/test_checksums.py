"""Checksums: every damage to every file is found and named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amd_jax import checksums


def a_step(folder: Path) -> Path:
    """Files as in a checkpoint, with checksums."""
    for name, content in {
        "params/_META": b"{}",
        "params/d/big": bytes(range(256)) * 50,
        "data/x": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "_META").write_text("changes after the checksums")
    checksums.write(folder)
    return folder


@given(at=st.integers(0, 256 * 50 - 1), bits=st.integers(1, 255))
def test_one_changed_byte_is_found(at: int, bits: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    step = a_step(tmp_path_factory.mktemp("step"))
    content = bytearray((step / "params/d/big").read_bytes())
    content[at] ^= bits
    (step / "params/d/big").write_bytes(content)
    assert checksums.damage(step) == "params/d/big has other contents than were written"


def test_what_is_missing_or_cut_is_named_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    step = a_step(tmp_path)
    assert checksums.damage(step) == ""
    (step / "_META").unlink()
    assert checksums.damage(step) == ""
    (step / "params/d/big").write_bytes(b"short")
    assert checksums.damage(step, "params") == "params/d/big has 5 of 12800 bytes"
    assert checksums.damage(step, "data") == ""
    (step / "data/x").unlink()
    assert checksums.damage(step, "data") == "data/x is missing"


def test_without_checksums_nothing_is_known_and_unreadable_ones_are_damage(tmp_path: Path) -> None:
    step = a_step(tmp_path)
    (step / checksums.FILE).write_text('{"params')
    assert "checksums.json cannot be read" in checksums.damage(step)
    (step / checksums.FILE).unlink()
    assert checksums.damage(step) == ""
    assert not checksums.exist(step)
