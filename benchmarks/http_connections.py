"""What is a kept-alive connection to an HTTP server: a request's bytes go in, a status and a body come out?

One that waits in the event loop and calls back, and one that blocks. httptools reads the answers. Knows nothing
about loads or which server it is.
"""

import asyncio
import socket
from collections.abc import Callable

import httptools

LOST = 0  # the status of a request that got no answer


def post(path: str, body: bytes) -> bytes:
    """A whole request with a JSON body."""
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    )


class OneConnection:
    """Asks and waits, with as little around it as Python allows."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _Reader()

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._reader.complete = False
        self._socket.sendall(request)
        while not self._reader.complete:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.parser.feed_data(data)
        return self._reader.answer()

    def close(self) -> None:
        self._socket.close()


class CallingConnection(asyncio.Protocol):
    """Tells `on_answer` of every answer, and of a request that lost its connection."""

    def __init__(self, on_answer: Callable[["CallingConnection", int, bytes], None]) -> None:
        self.index, self.since_s = -1, 0.0
        self.waiting = self.closed = False
        self._on_answer = on_answer
        self._reader = _Reader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, index: int, since_s: float) -> None:
        assert self._transport is not None
        self.index, self.since_s, self.waiting = index, since_s, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._reader.parser.feed_data(data)
        if self._reader.complete and self.waiting:
            self.waiting = False
            self._on_answer(self, *self._reader.answer())

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.waiting:
            self.waiting = False
            self._on_answer(self, LOST, f"connection lost ({error})".encode())

    def close(self) -> None:
        self.waiting = False
        if self._transport is not None:
            self._transport.abort()


class _Reader:
    """Collects one answer after the other."""

    def __init__(self) -> None:
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []

    def on_message_begin(self) -> None:
        self.complete, self._parts = False, []

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True

    def answer(self) -> tuple[int, bytes]:
        return self.parser.get_status_code(), b"".join(self._parts)
