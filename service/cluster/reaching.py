"""Does anything listen at the address of a cluster? Ray itself would try for minutes."""

import socket

REACH_S = 5.0


def reach(address: str) -> None:
    """Raises OSError when nothing listens at `HOST:PORT`; other addresses are Ray's to judge."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
