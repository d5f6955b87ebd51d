"""How much and how long does a connection get for what is no answer: the head of a request, its body, reading answers?

uvicorn bounds none of them. A head without end would fill the memory, and one that dribbles, or an answer that is not
read, would hold a connection for ever. Knows nothing about what is asked.
"""

from asyncio import Transport
from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.exchange import RawHeaders
from service.whole import WholeProtocol

MAX_HEAD_BYTES = 65_536
LINE_BYTES = len(b": \r\n")
# A body that is late gets an answer first, and so does a head that is too large and still comes.
GRACE_S = 1.0
REFUSED = f"The head of the request has more than {MAX_HEAD_BYTES} bytes.".encode()
REFUSAL = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
    len(REFUSED),
    REFUSED,
)


class HeadTooLargeError(Exception):
    """Tells the parser to read no further."""


class BoundedProtocol(WholeProtocol):
    """One connection of uvicorn's, which counts bytes that belong to no body and no complete head."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_bytes = 0
        self._in_head = True
        # Whether there may be a head in this read that is too large, and whether there was one.
        self._looks_long = self._too_large = False
        # Refused: what still comes is thrown away, since a client that is reset while it sends cannot read why.
        self._lingers = False
        # Since when the rest of a request is waited for, and since when the client leaves an answer unread.
        self._waits_since_s: float | None = self.loop.time()
        self._unread_since_s: float | None = None

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        if self._waits_since_s is None:
            self._waits_since_s = self.loop.time()
        self._idle_bytes += len(data)
        self._looks_long = self._idle_bytes > MAX_HEAD_BYTES
        super().data_received(data)
        if self._idle_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        # Before it is answered; a head that came with others or with its body is measured only now.
        if self._looks_long and head_bytes(self.url, self.headers) > MAX_HEAD_BYTES:
            self._too_large = True
            raise HeadTooLargeError
        self._idle_bytes, self._in_head, self._waits_since_s = 0, False, self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes, self._in_head, self._waits_since_s = 0, True, None
        super().on_message_complete()

    def is_late(self, now_s: float, limit_s: float) -> bool:
        """Whether the client has let the service wait for more than `limit_s`; ask now and then."""
        if self.transport.get_write_buffer_size() == 0:
            self._unread_since_s = None
        elif self._unread_since_s is None:
            self._unread_since_s = now_s
        waits = not self.flow.read_paused and _older(self._waits_since_s, now_s - limit_s)
        return waits or _older(self._unread_since_s, now_s - limit_s)

    def cut_off(self) -> None:
        """Close without waiting for the client."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does when the parser stops."""
        if self._too_large:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _refuse(self) -> None:
        if self._lingers:  # the parser was given more of the same read
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._lingers = True
            own = (b"%s: %s\r\n" % header for header in self.server_state.default_headers)
            self.transport.write(b"".join((STATUS_LINE[400], *own, REFUSAL)))
            self.transport.write_eof()
            self.loop.call_later(GRACE_S, self.transport.close)
        else:
            self.cut_off()


def head_bytes(url: bytes, headers: RawHeaders) -> int:
    """How long the head is of which these are the parts, but for its first line's method and version."""
    return len(url) + sum(len(name) + len(value) + LINE_BYTES for name, value in headers)


def cut_off_late(connections: Iterable[object], now_s: float, limit_s: float) -> None:
    """Cut off every connection that is late; `now_s` is in the event loop's time."""
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol) and connection.is_late(now_s, limit_s):
            connection.cut_off()


def _older(since_s: float | None, than_s: float) -> bool:
    return since_s is not None and since_s < than_s
