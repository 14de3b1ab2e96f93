"""Parts of a source: always the same, balanced where asked, and read for it only where that is needed."""

import builtins
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_tfds import FOLDER as TFDS_FOLDER

from amd_jax.config import default
from amd_jax.data.example import Example
from amd_jax.data.folders import FolderSource
from amd_jax.data.sources import make_source
from amd_jax.data.subset import balanced_part, held_out, shuffled_part
from amd_jax.errors import DataError


class Labels:
    """Examples that are nothing but their labels and have to be read; those in `broken` cannot be."""

    def __init__(self, labels: list[int], broken: frozenset[int] = frozenset()) -> None:
        self.labels, self.broken, self.num_classes = labels, broken, max(labels) + 1
        self.class_names = tuple("abcd"[: self.num_classes])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        if index in self.broken:
            raise OSError("broken")
        return Example(np.uint8([[index]]), self.labels[index])

    def label(self, index: int) -> int:
        return self[index].label

    def describe(self, index: int) -> str:
        return str(index)


def names(part: object) -> list[str]:
    return [part.describe(i) for i in range(len(part))]  # type: ignore[attr-defined]


def test_a_shuffled_part_is_the_same_every_time_and_of_distinct_examples() -> None:
    whole = Labels([i % 4 for i in range(50)])
    one, two = shuffled_part(whole, 20), shuffled_part(whole, 20)
    assert names(one) == names(two)
    assert len(set(names(one))) == 20
    assert one[3].content == whole[int(one.describe(3))].content
    assert len(shuffled_part(whole, 99)) == 50
    assert one.num_classes == 4
    assert one.class_names == ("a", "b", "c", "d")


@given(st.lists(st.integers(0, 3), min_size=8, max_size=120), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_balanced_part_has_equally_many_of_each_class_and_holds_every_smaller_one(
    labels: list[int], a: float, b: float
) -> None:
    whole = Labels([*labels, 3])
    parts = []
    for share in sorted((a, b)):
        quota = round(share * len(whole) / 4)
        if quota < 1:
            with pytest.raises(DataError, match="less than one"):
                balanced_part(whole, share)
            continue
        part = balanced_part(whole, share)
        parts.append(set(names(part)))
        there = Counter(whole.labels)
        taken = Counter(part[i].label for i in range(len(part)))
        assert taken == Counter({c: min(quota, n) for c, n in there.items()})
        assert len(parts[-1]) == len(part)
    if len(parts) == 2:
        assert parts[0] <= parts[1]


@given(st.lists(st.integers(0, 3), min_size=8, max_size=120), st.floats(0.05, 0.95))
def test_what_is_held_out_and_the_rest_are_all_and_of_each_class_alike(
    labels: list[int], share: float
) -> None:
    whole = Labels([*labels, 3])
    there = Counter(whole.labels)
    if len(whole) * share < 4:
        return  # that nothing is held out is refused below
    rest, held = held_out(whole, share)
    assert sorted(map(int, names(rest) + names(held))) == list(range(len(whole)))
    assert names(held) == names(held_out(whole, share)[1])
    assert set(rest.labels) == set(there)  # of no class is all held out
    for label, count in Counter(held.labels.tolist()).items():
        assert abs(count - share * there[label]) < 1.5
    if min(there.values()) * (1 - share) > 2:
        assert abs(len(held) - share * len(whole)) <= 0.5


def test_a_tenth_of_small_classes_is_a_tenth_of_all() -> None:
    whole = Labels([i % 50 for i in range(200)])
    assert Counter(Counter(held_out(whole, 0.1)[1].labels.tolist()).values()) == {1: 20}
    with pytest.raises(DataError, match=r"data.holdout=0.002: none of 200 examples"):
        held_out(whole, 0.002)


def test_a_config_holds_out_a_part_of_any_source_and_takes_a_share_of_the_rest() -> None:
    data = default().data
    data.holdout = 0.1
    train, test = make_source(data, "train"), make_source(data, "eval")
    assert (len(train), len(test)) == (9000, 1000)
    assert Counter(test.labels.tolist()) == dict.fromkeys(range(10), 100)
    assert not {*names(train)} & {*names(test)}
    data.share = 0.01
    share = make_source(data, "train")
    assert Counter(share.labels.tolist()) == dict.fromkeys(range(10), 9)
    assert {*names(share)} < {*names(train)}
    assert names(make_source(data, "eval")) == names(test)


def test_labels_that_would_have_to_be_read_are_not() -> None:
    data = default().data
    data.update({"source": "tfds", "name": "tiny_shapes", "path": str(TFDS_FOLDER), "holdout": 0.25})
    tfds = make_source(data, "eval")
    assert (len(tfds), len(make_source(data, "train"))) == (6, 18)
    assert not hasattr(tfds, "labels")


def test_what_has_to_be_read_and_cannot_is_replaced_by_another_of_its_class() -> None:
    whole = Labels([0, 1] * 20, broken=frozenset(range(10)))
    part = balanced_part(whole, 0.5)
    assert len(part) == 20
    assert not {*map(int, names(part))} & whole.broken


@pytest.fixture
def folder(tmp_path: Path) -> FolderSource:
    """Three classes of 12, 8 and 4 files, which hold their own names."""
    for name, count in (("a", 12), ("b", 8), ("c", 4)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "train" / name / f"{i}.jpg").write_text(f"{name}{i}")
    return FolderSource(str(tmp_path), "train")


def test_the_labels_of_a_folder_are_known_without_opening_a_file(
    folder: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], builtins.open
    monkeypatch.setattr(builtins, "open", lambda path, *args: opened.append(str(path)) or real(path, *args))
    part = balanced_part(folder, 0.5)
    assert Counter(part.label(i) for i in range(len(part))) == {0: 4, 1: 4, 2: 4}
    assert opened == []
    assert part[0].label == part.label(0)
    assert opened == [part.describe(0)]


def test_the_part_is_the_one_that_reading_every_label_finds(folder: FolderSource) -> None:
    read = Labels([folder[i].label for i in range(len(folder))])
    found = [folder.describe(int(name)) for name in names(balanced_part(read, 0.5))]
    assert names(balanced_part(folder, 0.5)) == found


def test_an_unreadable_file_of_a_known_class_is_left_for_training_to_count(folder: FolderSource) -> None:
    before = names(balanced_part(folder, 0.5))
    Path(before[2]).unlink()
    part = balanced_part(folder, 0.5)
    assert names(part) == before
    with pytest.raises(OSError, match="No such file"):
        part[2]


def test_a_config_takes_a_share_of_the_training_split_alone() -> None:
    data = default().data
    data.share = 0.01
    train = make_source(data, "train")
    assert Counter(train[i].label for i in range(len(train))) == dict.fromkeys(range(10), 10)
    assert len(make_source(data, "eval")) == 2000
