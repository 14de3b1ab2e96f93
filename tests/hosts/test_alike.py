"""What differs between the processes of a run is named, with who differs; the workdir is seen by all."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amd_jax.config import flat
from amd_jax.data.sources import make_source
from amd_jax.errors import ConfigError
from amd_jax.hosts import alike, star
from tests.runs import tiny


class Others:
    """Process 0 of a run whose other processes say `words`, one list an answer."""

    index = 0

    def __init__(self, *words: list[Any]) -> None:
        self._words = iter(words)

    def ask(self, word: Any, judge: Any) -> Any:
        return judge([word, *next(self._words)])

    def name(self, process: int) -> str:
        return f"process {process} (host{process})"


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: monkeypatch.setattr(star, "current", Others(*words))


def refusal(facts: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        alike.check(facts)
    assert caught.value.alone is False  # type: ignore[attr-defined]
    return str(caught.value)


def test_processes_that_are_alike_or_alone_go_on(others: Any) -> None:
    alike.check({"jax": "1"})
    others([{"jax": "1"}, {"jax": "1"}])
    alike.check({"jax": "1"})


def test_who_differs_is_named_and_in_what(others: Any) -> None:
    others([{"jax": "1", "seed": "0"}, {"jax": "2", "seed": "0", "new": "x"}, {"jax": "1"}])
    line = refusal({"jax": "1", "seed": "0"})
    assert line.startswith(
        "the processes differ from process 0 (host0): in process 2 (host2) jax is 2, not 1; new is x, not "
        "absent; in process 3 (host3) seed is absent, not 0; give all of them the same"
    )


def test_of_many_differences_a_few_are_named(others: Any) -> None:
    others([{str(i): "b" for i in range(9)}] * 7)
    line = refusal({str(i): "a" for i in range(9)})
    assert "2 is b, not a; 6 more; in process 2" in line
    assert "process 4" not in line
    assert "; 4 more processes differ;" in line


def test_a_changed_file_library_or_config_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, config = tmp_path / "amd_jax", tmp_path / "mine.py"
    (package / "train").mkdir(parents=True)
    (package / "train" / "loop.py").write_text("x = 1")
    config.write_text("y = 1")
    monkeypatch.setattr(alike, "PACKAGE", package)
    before = alike.of_program(str(config))
    assert before.keys() == {"Python", *alike.LIBRARIES, "the file amd_jax/train/loop.py", "the file mine.py"}
    (package / "train" / "loop.py").write_text("x = 2")
    monkeypatch.setattr(alike.importlib.metadata, "version", lambda name: "0")
    after = alike.of_program(str(config))
    assert {n for n in before if before[n] != after[n]} == {
        "the file amd_jax/train/loop.py",
        *alike.LIBRARIES,
    }

    a, b = (alike.of_config(flat(tiny(log__every=n))) for n in (1, 2))
    assert {n: b[n] for n in b if a[n] != b[n]} == {"config.log.every": "2"}


def test_other_examples_are_a_difference() -> None:
    whole, part = (make_source(tiny(data__share=share).data, "train") for share in (1.0, 0.5))
    assert alike.of_source("training", whole)["the number of training examples"] == "10000"
    a, b = alike.of_source("training", whole), alike.of_source("training", part)
    assert all(a[name] != b[name] for name in a)

    class Renamed:
        """The same number of examples, one of another name."""

        def __len__(self) -> int:
            return len(whole)

        def describe(self, index: int) -> str:
            return "other" if index == 7 else whole.describe(index)

    c = alike.of_source("training", Renamed())
    assert [name for name in a if a[name] != c[name]] == ["the list of training examples"]


def test_weights_of_another_size_are_a_difference(tmp_path: Path) -> None:
    (tmp_path / "teacher.pth").write_bytes(b"1234")
    size = {"the size of teacher.weights' teacher.pth": "4"}
    assert alike.of_weights("teacher", str(tmp_path / "teacher.pth")) == size
    assert alike.of_weights("teacher", str(tmp_path)) == size
    assert alike.of_weights("teacher", "hf://a/b") == alike.of_weights("teacher", "") == {}


def test_a_workdir_that_others_do_not_see_is_refused_and_nothing_stays_behind(
    tmp_path: Path, others: Any
) -> None:
    """It need not be there yet."""
    for seen in (True, False):
        others([None, None], [seen, True])
        if seen:
            alike.check_workdir(tmp_path / "new" / "run")
        else:
            with pytest.raises(ConfigError, match=r"process 1 \(host1\) cannot see what process 0 \(host0\)"):
                alike.check_workdir(tmp_path / "new" / "run")
        assert list(tmp_path.iterdir()) == []


def test_another_process_looks_for_the_file_beside_its_own_workdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 0 made it two folders above the workdir; hosts may have mounted them in different places."""
    monkeypatch.setattr(alike, "SEEN_WITHIN", 0)
    said: list[Any] = []
    for there in (True, False):
        if there:
            (tmp_path / "token").write_text("")
        answers = iter([[2, "token"], "" if there else "refused"])
        other = SimpleNamespace(index=1, ask=lambda word, judge, a=answers: said.append(word) or next(a))
        monkeypatch.setattr(star, "current", other)
        if there:
            alike.check_workdir(tmp_path / "new" / "run")
            (tmp_path / "token").unlink()
        else:
            with pytest.raises(ConfigError, match="refused"):
                alike.check_workdir(tmp_path / "new" / "run")
    assert said == [None, True, None, False]


def test_process_zero_says_that_it_cannot_write(tmp_path: Path, others: Any) -> None:
    (tmp_path / "file").write_text("")
    others([None])
    with pytest.raises(ConfigError, match="cannot be written to"):
        alike.check_workdir(tmp_path / "file" / "run")
