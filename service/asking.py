"""How is the body of a request read, how long may it take, and what happens when its caller leaves?

Knows nothing about models. The only files that know FastAPI or Starlette are this one, `direct`, `gate`,
`middleware`, `openapi`, `app` and `routes/`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.errors import BodyTooLargeError, ClientGoneError, MalformedError, RequestTimeoutError

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS = 3_600_000

Answer = TypeVar("Answer")


def read_timeout_s(value: str) -> float:
    """Seconds of the header X-Request-Timeout-Ms. Raises MalformedError."""
    if value.isascii() and value.isdigit() and len(value) <= 7 and 1 <= int(value) <= MAX_TIMEOUT_MS:
        return int(value) / 1000
    raise MalformedError(
        f"the header {TIMEOUT_HEADER} is {value!r}; send a whole number of milliseconds from 1 to {MAX_TIMEOUT_MS}"
    )


async def read_body(request: Request, *, max_bytes: int, deadline_s: float) -> bytes:
    """The whole body: its announced length is judged before it comes in, and it is counted while it does.

    Raises BodyTooLargeError, MalformedError when it is encoded, RequestTimeoutError when it comes too slowly,
    ClientGoneError.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MalformedError("the body has a Content-Encoding; send it plain")
    if is_longer(request.headers.get("content-length", ""), max_bytes):
        raise too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout_at(deadline_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
    except ClientDisconnect as error:
        raise ClientGoneError("the client left before its request was complete") from error
    except TimeoutError as error:
        raise RequestTimeoutError("the body did not arrive in time; send it faster") from error
    return bytes(body)


def is_longer(announced: str, max_bytes: int) -> bool:
    """Whether the header Content-Length says more; one that is no number is the server's to refuse."""
    return announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > max_bytes)


def too_large(max_bytes: int) -> BodyTooLargeError:
    """What is wrong with a body of more than `max_bytes`."""
    return BodyTooLargeError(
        f"the body has more than {max_bytes} bytes; send fewer texts at a time, or raise --max-body-bytes"
    )


async def unless_caller_leaves(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run `work`; cancel it when the caller disconnects. Call only after the body was read.

    Raises ClientGoneError then.
    """
    working, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        await request.receive()  # after the body nothing comes but the news that the caller left
        gone = True
        if working is not None:
            working.cancel()

    # It runs only while `work` waits for something, so it never cancels what comes after.
    watching = asyncio.get_running_loop().create_task(watch())
    try:
        return await work
    except asyncio.CancelledError as error:
        if gone and working is not None and working.uncancel() == 0:
            raise ClientGoneError("the client left before its answer was ready") from error
        raise
    finally:
        watching.cancel()
