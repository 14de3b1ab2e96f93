"""Processes find each other; who is missing, or was started for another run, is said in all that came."""

import json
import socket
import threading
import time
from typing import Any

import pytest

from amd_jax.errors import ConfigError
from amd_jax.hosts import meeting
from amd_jax.hosts.meeting import Place, assemble
from tests.ports import free_port


def all_meet(*places: Place, minutes: float = 1.0) -> list[Any]:
    """What `assemble` returns or raises in each process."""
    found: list[Any] = [None] * len(places)

    def one(number: int) -> None:
        try:
            found[number] = assemble(places[number], minutes)
        except ConfigError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def places(*indices: int, count: int = 3) -> list[Place]:
    """Places of one run."""
    address = f"127.0.0.1:{free_port()}"
    return [Place(address, count, index) for index in indices]


def test_all_that_come_know_of_each_other_and_the_port_is_free_again() -> None:
    """Process 0 comes last, and in between somebody who is no process of the run."""
    given = places(1, 2, 0)
    found = all_meet(*given)
    assert [hosts for hosts, _, _ in found] == [[socket.gethostname()] * 3] * 3
    assert [sorted(wires) for _, wires, _ in found] == [[0], [0], [1, 2]]
    found[0][1][0].send(x=1)
    assert found[2][1][1].receive() == {"x": 1}
    meeting._listen(given[0].address).close()  # jax's turn, while the connections stay


def test_who_is_missing_is_said_to_all_that_came() -> None:
    line = "2 of 3 processes came within 0.02 minutes (--start_minutes); missing: 1"
    assert all_meet(*places(0, 2), minutes=0.02) == [line] * 2


def test_without_process_zero_the_others_say_where_they_looked() -> None:
    (place,) = places(1)
    (line,) = all_meet(place, minutes=0.01)
    assert line.startswith(f"process 0 was not found at {place.address} within 0.01 minutes")
    assert "refused" in line


@pytest.mark.parametrize(
    ("others", "line"),
    [
        ([(1, 3), (1, 3)], "two processes say that they are number 1"),
        ([(1, 4)], "was told that it is one of 4 processes, process 0"),
        ([(5, 3)], "process 5"),
    ],
)
def test_who_was_started_for_another_run_is_refused_by_all(others: list[tuple[int, int]], line: str) -> None:
    (first,) = places(0)
    found = all_meet(first, *(Place(first.address, count, index) for index, count in others))
    assert all(line in said for said in found), found


def test_strangers_are_ignored_and_a_process_may_come_again() -> None:
    first, second, third = places(0, 1, 2)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(all_meet(first)), daemon=True)
    thread.start()
    hello = {"protocol": meeting.PROTOCOL, "index": 1, "count": 3, "host": "old", "time": 0.0}
    for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"protocol": "else"}\n', json.dumps(hello).encode() + b"\n"):
        with connected(first.address) as stranger:
            stranger.sendall(words)
    names = [socket.gethostname()] * 3
    assert [hosts for hosts, _, _ in all_meet(second, third)] == [names] * 2
    thread.join(60)
    assert found[0][0] == names


def connected(address: str) -> socket.socket:
    """A connection, as soon as somebody listens."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", int(address.split(":")[1])))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        (line,) = all_meet(Place(f"127.0.0.1:{port}", 2, 0))
    assert f"cannot listen on port {port}" in line


def test_a_clock_that_is_off_is_said_by_process_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    guests = {
        i: meeting.Guest(None, host, ahead)  # type: ignore[arg-type]
        for i, host, ahead in [(1, "bob", 0.5), (2, "cid", -95.2), (3, "dan", 61.0)]
    }
    monkeypatch.setattr(meeting, "_host", lambda: "ann")
    assert meeting._odd_clocks(guests) == [
        "the clock of process 2 (cid) is 95 s behind that of process 0 (ann)",
        "the clock of process 3 (dan) is 61 s ahead of that of process 0 (ann)",
    ]


@pytest.mark.parametrize("address", ["host", "host:", "host:x"])
def test_an_address_without_a_port_is_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        assemble(Place(address, 2, 1), 1)
