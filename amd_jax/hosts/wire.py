"""One connection between two processes: JSON, a message a line."""

import contextlib
import json
import socket
import threading
from typing import Any


class Gone(Exception):
    """The other end is gone, or was never one of ours; says how that was noticed."""


class Wire:
    """A connection over which both ends may send at any time."""

    def __init__(self, connection: socket.socket, patience: float) -> None:
        """Takes `connection` over; nothing heard for `patience` seconds counts as gone."""
        connection.settimeout(patience)
        with contextlib.suppress(OSError):  # only matters over a network
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._reader = connection.makefile("rb")
        self._sending = threading.Lock()

    def wait(self, patience: float) -> None:
        """From now on, nothing heard for so many seconds counts as gone."""
        self._connection.settimeout(patience)

    def send(self, **message: Any) -> None:
        """Sends a message; who receives finds out if the other end is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next message; raises Gone."""
        try:
            line = self._reader.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except TimeoutError:
            raise Gone(f"nothing heard of it for {self._connection.gettimeout():g} s") from None
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from None
        if not isinstance(message, dict):
            raise Gone("its connection closed")
        return message

    @property
    def is_closed(self) -> bool:
        """Whether the other end has gone by now; nothing may have been sent since the last `receive`."""
        patience = self._connection.gettimeout()
        self._connection.settimeout(0)
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._connection.settimeout(patience)

    def close(self) -> None:
        """The other end receives Gone."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
