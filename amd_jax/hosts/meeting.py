"""The processes of a run find each other, on the coordinator's own port before jax listens there.

jax aborts a process that has waited in vain for the others, without saying for which. So process 0 first
waits for them here, and says who is missing. The connections stay: they are the run's `Star`.
"""

import dataclasses
import os
import socket
import time

from amd_jax.errors import ConfigError
from amd_jax.hosts.wire import Gone, Wire

PROTOCOL = "amd_jax 1"
HELLO = 10.0  # seconds for a process that has connected to say who it is
STILL_WAITING = 30.0  # seconds after which process 0 says for whom
CLOCKS = 60.0  # seconds that clocks may differ without a word


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of a run's processes this is."""

    address: str  # HOST:PORT of process 0
    count: int
    index: int


@dataclasses.dataclass(frozen=True)
class Guest:
    """A process that came to process 0."""

    wire: Wire
    host: str
    ahead: float  # seconds that its clock is ahead of process 0's


def assemble(place: Place, minutes: float) -> tuple[list[str], dict[int, Wire], list[str]]:
    """The names of the hosts by process, this process's connections, and what process 0 found odd.

    Raises:
      ConfigError: in all that came: not everybody did in time, or some were started for another run.
    """
    deadline = time.monotonic() + minutes * 60
    if place.index:
        hosts, wire = _go(place, deadline, minutes)
        return hosts, {0: wire}, []
    guests: dict[int, Guest] = {}
    try:
        _receive(place, guests, deadline, minutes)
    except ConfigError as error:
        for guest in guests.values():
            guest.wire.send(refused=str(error))
        raise
    hosts = [_host(), *(guests[i].host for i in range(1, place.count))]
    for guest in guests.values():
        guest.wire.send(hosts=hosts)
    return hosts, {i: guest.wire for i, guest in guests.items()}, _odd_clocks(guests)


def _receive(place: Place, guests: dict[int, Guest], deadline: float, minutes: float) -> None:
    """Process 0 waits for all others."""
    said = time.monotonic() + STILL_WAITING
    with _listen(place.address) as listener:
        while len(guests) < place.count - 1:
            missing = ", ".join(str(i) for i in range(1, place.count) if i not in guests)
            if (now := time.monotonic()) > deadline:
                raise ConfigError(
                    f"{len(guests) + 1} of {place.count} processes came within {minutes:g} minutes "
                    f"(--start_minutes); missing: {missing}"
                )
            if now > said:
                print(f"waiting for {missing} of {place.count} processes", flush=True)
                said = deadline
            listener.settimeout(min(1.0, max(0.01, deadline - now)))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                connection = None
            for index in [i for i, guest in guests.items() if guest.wire.is_closed]:
                guests.pop(index).wire.close()  # it gave up, or will come again
            if connection:
                _welcome(Wire(connection, HELLO), place, guests)


def _welcome(wire: Wire, place: Place, guests: dict[int, Guest]) -> None:
    """Notes who has come; whoever is no process of ours is sent away."""
    try:
        hello = wire.receive()
        if hello["protocol"] != PROTOCOL:
            raise Gone(f"speaks {hello['protocol']!r}")
        index, count, host = int(hello["index"]), int(hello["count"]), str(hello["host"])
        guest = Guest(wire, host, float(hello["time"]) - time.time())
    except (Gone, KeyError, TypeError, ValueError):
        wire.close()
        return
    before = guests.get(index, guest)
    guests[index] = guest
    if count != place.count or not 0 < index < count:
        raise ConfigError(
            f"process {index} ({host}) was told that it is one of {count} processes, process 0 ({_host()}) "
            f"that it is one of {place.count}"
        )
    if before is not guest:
        line = f"two processes say that they are number {index}, on {before.host} and on {host}"
        before.wire.send(refused=line)
        raise ConfigError(line)


def _listen(address: str) -> socket.socket:
    """On all of the host's addresses, as jax will."""
    port = int(_split(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", address))[1])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(
            f"--distributed: process 0 cannot listen on port {port} ({error.strerror}): end what uses it, or "
            "give another one"
        ) from error


def _go(place: Place, deadline: float, minutes: float) -> tuple[list[str], Wire]:
    """The others go to process 0, again and again until it answers."""
    why = "it was not there"
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection(_split(place.address), timeout=min(HELLO, left))
        except OSError as error:
            why = error.strerror or str(error)
            time.sleep(0.2)
            continue
        wire = Wire(connection, left + HELLO)
        wire.send(protocol=PROTOCOL, index=place.index, count=place.count, host=_host(), time=time.time())
        try:
            answer = wire.receive()
        except Gone as gone:  # jax of another run listens there, or process 0 has been started again
            why = str(gone)
            wire.close()
            time.sleep(0.2)
            continue
        if "refused" in answer:
            raise ConfigError(answer["refused"])
        return answer["hosts"], wire
    raise ConfigError(
        f"process 0 was not found at {place.address} within {minutes:g} minutes (--start_minutes): {why}"
    )


def _odd_clocks(guests: dict[int, Guest]) -> list[str]:
    return [
        f"the clock of process {i} ({guest.host}) is {abs(guest.ahead):.0f} s "
        f"{'ahead of' if guest.ahead > 0 else 'behind'} that of process 0 ({_host()})"
        for i, guest in sorted(guests.items())
        if abs(guest.ahead) > CLOCKS
    ]


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        return host.strip("[]"), int(port)
    except ValueError:
        raise ConfigError(f"--coordinator={address}: give HOST:PORT") from None


def _host() -> str:
    return socket.gethostname()
