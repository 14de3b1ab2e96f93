"""The processes of a run hold on to each other: one that goes ends all, with one line and one exit code."""

import queue
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from amd_jax import exits
from amd_jax.errors import DataError
from amd_jax.hosts import ending, star
from amd_jax.hosts.star import Star
from amd_jax.hosts.wire import Wire

HOSTS = ["ann", "bob", "cid"]


@pytest.fixture
def run() -> Iterator[SimpleNamespace]:
    """Three processes as three objects; `codes` gets (process, exit code) where one would end."""
    pairs = {i: socket.socketpair() for i in (1, 2)}
    wires = {i: Wire(b, 60) for i, (_, b) in pairs.items()}
    codes: queue.Queue[tuple[int, int]] = queue.Queue()

    def made(index: int, wires: dict[int, Wire]) -> Star:
        return Star(index, HOSTS, wires, 60, lambda code: codes.put((index, code)))

    first = made(0, {i: Wire(a, 60) for i, (a, _) in pairs.items()})
    yield SimpleNamespace(
        stars=[first, *(made(i, {0: wire}) for i, wire in wires.items())], wires=wires, codes=codes
    )
    for wire in wires.values():
        wire.close()


def in_all(run: SimpleNamespace, call: Any) -> list[Any]:
    """What `call` returns for each process, at the same time."""
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda s=s: found.update({s.index: call(s)}), daemon=True) for s in run.stars
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[i] for i in range(3)]


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_all_get_process_zeros_answer_to_the_words_of_all(run: SimpleNamespace) -> None:
    for factor in (1, 10):
        answers = in_all(run, lambda s, factor=factor: s.ask(s.index * factor, lambda words: [*words, "!"]))
        assert answers == [[0, factor, 2 * factor, "!"]] * 3


def test_one_that_is_killed_ends_all_which_say_who(
    run: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    run.stars[1]._over = True  # who is killed says nothing more
    run.wires[1].close()
    assert {run.codes.get(timeout=60) for _ in range(2)} == {(i, exits.LOST) for i in (0, 2)}
    gone = (
        "process 1 (bob) is gone (its connection closed); the same command goes on from the last checkpoint"
    )
    assert told(capsys).count(f"error: {gone}") == 2


def test_process_zero_is_missed_too(run: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    run.stars[0]._over = True  # who is killed says nothing more
    for wire in run.stars[0]._wires.values():
        wire.close()
    assert {run.codes.get(timeout=60) for _ in range(2)} == {(i, exits.LOST) for i in (1, 2)}
    assert sum("process 0 (ann) is gone" in line for line in told(capsys)) == 2


def test_one_of_which_nothing_is_heard_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    silent, end = socket.socketpair()
    codes: queue.Queue[int] = queue.Queue()
    Star(0, HOSTS[:2], {1: Wire(end, 60)}, 0.05, codes.put)
    assert codes.get(timeout=60) == exits.LOST
    assert "process 1 (bob) is gone (nothing heard of it for 0.05 s)" in told(capsys)[0]
    silent.close()


@pytest.mark.parametrize(("own", "others"), [(exits.USAGE, exits.USAGE), (exits.FAILED, exits.LOST)])
@pytest.mark.parametrize("who", [0, 2])
def test_the_end_of_one_is_the_end_of_all_and_said_by_all(
    who: int, own: int, others: int, run: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake is a mistake of the run; an error that nobody expected leaves the others to go on later."""
    run.stars[who].end_alone(own, "no such folder")
    assert {run.codes.get(timeout=60) for _ in range(3)} == {
        (i, own if i == who else others) for i in range(3)
    }
    line = f"error: process {who} ({HOSTS[who]}) ended: no such folder"
    assert sorted(told(capsys)) == sorted(["error: no such folder", line, line])


def test_who_goes_after_all_have_come_to_the_end_is_not_missed(
    run: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    in_all(run, lambda s: s.end_together())
    for wire in run.wires.values():
        wire.close()
    for each in run.stars:
        for listener in each._listeners:
            listener.join(60)
    assert run.codes.empty()
    assert told(capsys) == []


class JaxRuntimeError(RuntimeError):
    """As jax's, which cannot be made here."""


LOST_TOUCH = "Gloo AllReduce failed: Connection closed by peer [127.0.0.1]:4000"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("no such folder"), exits.USAGE, "no such folder"),
        (KeyError("x"), exits.FAILED, "KeyError: 'x'"),
        (JaxRuntimeError(LOST_TOUCH), exits.LOST, f"the processes lost touch ({LOST_TOUCH})"),
        (JaxRuntimeError("INTERNAL: Barrier timed out"), exits.LOST, "lost touch (INTERNAL: Barrier"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: Connection pool"), exits.USAGE, "out of memory"),
    ],
)
def test_an_error_of_one_process_ends_it_and_tells_the_others(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[int, str]] = []
    alone = SimpleNamespace(end_alone=lambda *end: ends.append(end))
    monkeypatch.setattr(star, "current", alone)
    monkeypatch.setattr(ending, "GRACE", 0)
    assert ending.ended(error) == code
    assert [end[0] for end in ends] == [code]
    assert line in ends[0][1]


def test_an_error_that_all_have_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("loss")
    error.exit_code = exits.NON_FINITE  # type: ignore[attr-defined]
    calls: list[Any] = []
    both = SimpleNamespace(end_together=lambda: calls.append("together"), go=calls.append)
    monkeypatch.setattr(star, "current", both)
    assert ending.ended(error) == exits.NON_FINITE
    assert calls == ["together", exits.NON_FINITE]
    calls.clear()
    assert ending.ended(None) == exits.DONE
    assert calls == ["together"]


def test_the_only_process_ends_as_ever() -> None:
    assert ending.ended(None) == exits.DONE
    assert ending.ended(DataError("x")) == exits.USAGE
    with pytest.raises(KeyError):
        ending.ended(KeyError("x"))
