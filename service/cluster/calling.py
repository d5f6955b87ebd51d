"""How is the app called where no web server calls it: by Ray, or for a request that came as a message?

Ray cancels a request whose client left; the app is told so, as a web server would tell it. Knows nothing about Ray.
"""

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.ledger import REQUEST_ID_HEADER

# An app that hears that the client left ends its work within one node of a graph.
END_S = 5.0
LEFT: Message = {"type": "http.disconnect"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request whose body is there."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Its answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Call the app; when this is cancelled the app hears that the client left, and ends."""
    left, complete = asyncio.Event(), False

    async def hear() -> Message:
        nonlocal complete
        if complete:
            await left.wait()
            return LEFT
        message = await receive()
        complete = not message.get("more_body", False)
        return message

    answering = asyncio.ensure_future(app(scope, hear, send))
    try:
        await asyncio.shield(answering)
    except asyncio.CancelledError:
        left.set()
        if not complete:
            answering.cancel()
        await asyncio.wait([answering], timeout=END_S)
        raise


async def answer(app: ASGIApp, asked: Asked) -> Answered:
    """What the app answers to a request that came as a message."""
    messages: list[Message] = []

    async def body() -> Message:
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def keep(message: Message) -> None:
        messages.append(message)

    await call(app, _scope(asked), body, keep)
    start, *rest = messages
    return Answered(
        status=start["status"],
        headers=[(bytes(name), bytes(value)) for name, value in start["headers"]],
        body=b"".join(message.get("body", b"") for message in rest),
    )


async def send_answer(answered: Answered, send: Send) -> None:
    """Pass an answer on."""
    await send({"type": "http.response.start", "status": answered.status, "headers": answered.headers})
    await send({"type": "http.response.body", "body": answered.body})


def without_request_id(send: Send) -> Send:
    """Ray's proxy says the request's id itself."""

    async def pass_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = [header for header in message["headers"] if header[0] != REQUEST_ID_HEADER]
            message = {**message, "headers": told}
        await send(message)

    return pass_on


def _scope(asked: Asked) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": asked.method,
        "path": asked.path,
        "raw_path": asked.path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": asked.headers,
        "client": None,
        "server": None,
    }
