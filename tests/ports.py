"""A port for processes that have to meet."""

import socket


def free_port(first: int = 0, last: int = 0) -> int:
    """A port that nobody listens on; any, or one of a range."""
    for port in range(first, last + 1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise OSError(f"no port from {first} to {last} is free")
