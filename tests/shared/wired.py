"""A connection of uvicorn's without a network, and what is behind it."""

import asyncio
from collections.abc import Awaitable, Callable

import uvicorn
from uvicorn.server import ServerState

from service.connections import BoundedProtocol
from service.direct import Route, Whole
from service.exchange import Reply

HEAD = b"POST /direct HTTP/1.1\r\nHost: x\r\n"
FOUR = HEAD + b"Content-Length: 4\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-route: /direct\r\n\r\nbody"


class Direct:
    """Answers `/direct`, when it is let, with what was sent; remembers what it was asked."""

    max_body_bytes = 1000

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.fails = False
        self.let = asyncio.Event()
        self.let.set()

    def find(self, path: str) -> Route | None:
        return Route(template=path, handler=None) if path == "/direct" else None

    async def answer(self, route: Route, whole: Whole) -> None:
        self.asked.append(whole.body)
        if self.fails:
            raise RuntimeError("no answer")
        try:
            await self.let.wait()
            await whole.write(Reply(body=whole.body, headers=((b"x-route", route.template.encode()),)))
        except asyncio.CancelledError:
            self.asked.append(b"gone" if whole.gone else b"cut off")


class Wire(asyncio.Transport):
    """A double of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A connection and what is behind it; `through` is what came to the app."""

    def __init__(self) -> None:
        self.direct, self.wire, self.through, self.messages = Direct(), Wire(), [], []
        config = uvicorn.Config(self._app, log_config=None, ws="none", interface="asgi3")
        self.protocol = BoundedProtocol(config, ServerState(), {}, _loop=asyncio.get_running_loop(), direct=self.direct)
        self.protocol.connection_made(self.wire)

    async def _app(self, scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            self.messages += [message["type"]] if message["type"] != "http.request" else []
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.through.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"app"})

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)
        await self.done()

    async def done(self) -> None:
        while self.protocol.tasks:
            await asyncio.wait(set(self.protocol.tasks))
