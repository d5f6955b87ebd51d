"""How does a connection of uvicorn's hand over requests that come whole, and write their answers at once?

Everything else goes the long way, through ASGI: heads that ask for something, bodies without a length, with more
bytes than a connection may hold, or that take their time, and what is sent before the answer to what was sent before.
Knows nothing about routes or models.
"""

import asyncio
from asyncio import TimerHandle
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.asking import is_longer
from service.exchange import RawHeaders, Reply

METHOD, VERSION = b"POST", "1.1"
LENGTH = b"content-length"
LONG_WAY = frozenset((b"expect", b"content-encoding", b"transfer-encoding", b"upgrade", b"origin"))
# Clients that send head and body in two pieces send them at once.
REST_WITHIN_S = 0.02


class Direct(Protocol):
    """Who answers requests that came whole."""

    def max_body_bytes(self, path: str) -> int:
        """The longest body that is answered here; -1 for a path that is not."""

    async def answer(
        self, path: str, headers: RawHeaders, body: bytes, caller: "Exchange", write: Callable[[Reply], Awaitable[None]]
    ) -> None:
        """Answer a POST through `write`."""


class Exchange:
    """One whole request and its answer; for uvicorn what its own cycle is."""

    # Nobody waits for it.
    message_event: ClassVar = asyncio.Event()

    def __init__(self, protocol: "WholeProtocol", path: str, body: bytes, *, keep_alive: bool) -> None:
        self.gone = False
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = keep_alive
        self._protocol = protocol
        self._path = path
        self._headers = protocol.headers
        self._body = body
        self._running = False
        self.task: asyncio.Task[None] | None = None

    async def run(self, direct: Direct) -> None:
        """Have it answered, by the task that is begun for it."""
        self._running = True
        await direct.answer(self._path, self._headers, self._body, self, self._write)

    def leave(self) -> None:
        """The connection is lost."""
        self.gone = True
        # One that is not running yet will look.
        if self.task is not None and self._running and not self.response_complete:
            self.task.cancel()

    async def _write(self, reply: Reply) -> None:
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

    def __init__(self, *arguments: Any, direct: Direct, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._direct = direct
        # What came of a body that may be answered directly.
        self._coming: list[bytes] | None = None
        self._patience: TimerHandle | None = None
        self._exchange: Exchange | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._coming is not None and self._patience is None:
            self._patience = self.loop.call_later(REST_WITHIN_S, self._go_the_long_way)

    def on_headers_complete(self) -> None:
        if self._may_be_direct():
            self._coming = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._coming is None:
            super().on_body(body)
        else:
            self._coming.append(body)

    def on_message_complete(self) -> None:
        if self._coming is None:
            super().on_message_complete()
            return
        body = b"".join(self._coming)
        self._stop_waiting()
        exchange = Exchange(self, self.url.decode("ascii"), body, keep_alive=self.parser.should_keep_alive())
        # For uvicorn it is the cycle of this request.
        self._exchange = self.cycle = cast("Any", exchange)
        exchange.task = task = self.loop.create_task(exchange.run(self._direct))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._exchange is not None:
            self._exchange.leave()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._go_the_long_way()
        super().shutdown()

    def _may_be_direct(self) -> bool:
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.parser.get_method() != METHOD or self.parser.get_http_version() != VERSION:
            return False
        max_bytes = min(HIGH_WATER_LIMIT, self._direct.max_body_bytes(self.url.decode("ascii")))
        if max_bytes < 0 or self.parser.should_upgrade():
            return False
        length = ""
        for name, value in self.headers:
            if name in LONG_WAY:
                return False
            if name == LENGTH:
                length = value.decode("latin-1")
        return bool(length) and not is_longer(length, max_bytes)

    def _go_the_long_way(self) -> None:
        """What came so far is given to uvicorn's own cycle."""
        if self._coming is None:
            return
        body = b"".join(self._coming)
        self._stop_waiting()
        if not self.transport.is_closing():
            super().on_headers_complete()
            super().on_body(body)

    def _stop_waiting(self) -> None:
        self._coming = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
