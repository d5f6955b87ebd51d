"""How does a connection of uvicorn's hand over requests that come whole, and write their answers at once?

Everything else goes the long way, through ASGI: heads that ask for something, bodies without a length, with more
bytes than a connection may hold, or that take their time, and what is sent before the answer to what was sent before.
Knows nothing about routes or models.
"""

import asyncio
import logging
import sys
from asyncio import TimerHandle
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.asking import is_longer
from service.direct import DirectRoutes, Route
from service.exchange import RawHeaders, Reply

log = logging.getLogger(__name__)

METHOD, VERSION = b"POST", "1.1"
LENGTH = b"content-length"
# So much of each connection is held without being counted (`service/holding.py`); a text has a few hundred.
MAX_BODY_BYTES = 16_384
LONG_WAY = frozenset((b"expect", b"content-encoding", b"transfer-encoding", b"upgrade", b"origin"))
# Clients that send head and body in two pieces send them at once.
REST_WITHIN_S = 0.02
UPGRADE = frozenset((b"upgrade", b"http2-settings"))


class Exchange:
    """One whole request and its answer; for uvicorn what its own cycle is."""

    # Nobody waits for it.
    message_event: ClassVar = asyncio.Event()

    def __init__(self, protocol: "WholeProtocol", path: str, body: bytes, *, keep_alive: bool) -> None:
        self.path = path
        self.headers: RawHeaders = protocol.headers
        self.body = body
        self.gone = False
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = keep_alive
        self.task: asyncio.Task[None] | None = None
        self._protocol = protocol
        self._running = False

    async def run(self, direct: DirectRoutes, route: Route) -> None:
        """Have it answered, by the task that is begun for it."""
        self._running = True
        try:
            await direct.answer(route, self)
        except Exception:
            log.exception("a request got no answer")
        finally:
            # Without an answer the client must at least hear that there will be none.
            if not self.response_complete:
                self._protocol.transport.close()

    def leave(self) -> None:
        """The connection is lost."""
        self.gone = True
        # One that is not running yet will look.
        if self.task is not None and self._running and not self.response_complete:
            self.task.cancel()

    async def write(self, reply: Reply) -> None:
        """See `Whole`."""
        protocol = self._protocol
        if protocol.flow.write_paused:
            await protocol.flow.drain()
        if self.gone or protocol.transport.is_closing():
            return
        protocol.transport.write(self._as_bytes(reply))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def _as_bytes(self, reply: Reply) -> bytes:
        length = (LENGTH, str(len(reply.body)).encode())
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self._protocol.server_state.default_headers, length, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", reply.body)
        return b"".join(parts)


class WholeProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, direct: DirectRoutes, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._direct = direct
        # Who answers what comes now, and what came of its body.
        self._route: Route | None = None
        self._coming: list[bytes] = []
        self._patience: TimerHandle | None = None
        self._exchange: Exchange | None = None
        self.cycle: Any
        # What the parser reads now, and what of it came after a head that asks for another protocol.
        self._fed: bytes | memoryview = b""
        self._after_upgrade: bytes | memoryview = b""

    def data_received(self, data: bytes) -> None:
        self._feed(data)
        while self._after_upgrade:
            rest, self._after_upgrade = self._after_upgrade, b""
            self._feed(rest)
        if self._route is not None and self._patience is None:
            self._patience = self.loop.call_later(REST_WITHIN_S, self._go_the_long_way)

    def _feed(self, data: bytes | memoryview) -> None:
        self._fed = data
        super().data_received(data)  # type: ignore[arg-type]
        self._fed = b""

    # There is no other protocol here, and a server may pass over the wish for one (RFC 9110, 7.8). httptools reads no
    # body after such a head, so the head is read again without the wish, in the places where uvicorn would turn to
    # web sockets.

    def _should_upgrade(self) -> bool:
        return bool(self.parser.get_method() != b"CONNECT")

    def handle_websocket_upgrade(self) -> None:
        """Called while the exception is handled that says where the head ended."""
        end: int = sys.exception().args[0]  # type: ignore[union-attr]
        self._after_upgrade = memoryview(self._fed)[end:]
        old = self.parser
        version = old.get_http_version().encode()
        # The old one reads nothing more when the connection is to be closed after the answer.
        self.parser = type(old)(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._feed(without_upgrade(old.get_method(), self.url, version, self.headers))

    def on_headers_complete(self) -> None:
        self._route = self._find_route()
        if self._route is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._route is None:
            super().on_body(body)
        else:
            self._coming.append(body)

    def on_message_complete(self) -> None:
        if self._route is None:
            super().on_message_complete()
            return
        route, body = self._route, b"".join(self._coming)
        self._stop_waiting()
        exchange = Exchange(self, self.url.decode("latin-1"), body, keep_alive=self.parser.should_keep_alive())
        # For uvicorn it is the cycle of this request.
        self._exchange = self.cycle = cast("Any", exchange)
        exchange.task = task = self.loop.create_task(exchange.run(self._direct, route))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        # What came of a request is counted as one whose client left.
        self._go_the_long_way()
        if self._exchange is not None:
            self._exchange.leave()
        super().connection_lost(exc)
        # A circle would keep head and body until somebody looks for circles.
        if isinstance(self.cycle, Exchange):
            self.cycle = cast("Any", None)
        self._exchange = None

    def shutdown(self) -> None:
        self._go_the_long_way()
        super().shutdown()

    def _find_route(self) -> Route | None:
        """Who answers the request whose head is complete, if it may come whole."""
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        if self.parser.get_method() != METHOD or self.parser.get_http_version() != VERSION:
            return None
        route = self._direct.find(self.url.decode("latin-1"))
        if route is None or self.parser.should_upgrade():
            return None
        length = ""
        for name, value in self.headers:
            if name in LONG_WAY:
                return None
            if name == LENGTH:
                length = value.decode("latin-1")
        # httptools takes other forms of a number too, of which nothing here counts the bytes.
        plain = length.isascii() and length.isdigit()
        return route if plain and not is_longer(length, min(MAX_BODY_BYTES, self._direct.max_body_bytes)) else None

    def _go_the_long_way(self) -> None:
        """What came so far is given to uvicorn's own cycle."""
        if self._route is None:
            return
        body = b"".join(self._coming)
        self._stop_waiting()
        super().on_headers_complete()
        super().on_body(body)

    def _stop_waiting(self) -> None:
        self._route, self._coming = None, []
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def without_upgrade(method: bytes, url: bytes, version: bytes, headers: RawHeaders) -> bytes:
    """The head of a request as it is when it asks for no other protocol."""
    lines = [b"%s %s HTTP/%s" % (method, url, version)]
    for name, value in headers:
        if name == b"connection":
            words = [word.strip() for word in value.split(b",")]
            lines += [b"connection: " + word for word in words if word.lower() not in UPGRADE]
        elif name not in UPGRADE:
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join((*lines, b"", b""))
