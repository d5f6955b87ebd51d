"""How is the body of a request read, how long may it take, and what happens when its caller leaves?

Knows nothing about models. The only files that know FastAPI or Starlette are this one, `gate`, `holding`,
`middleware`, `openapi`, `app`, `cli`, `routes/` and those of `cluster/` that stand before them.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Message

from service.deadlines import Deadline, of_service
from service.errors import BodyTooLargeError, ClientGoneError, MalformedError, RequestTimeoutError

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
TIMEOUT = TIMEOUT_HEADER.lower().encode()
MAX_TIMEOUT_MS = 3_600_000
MAX_TIMEOUT_DIGITS = len(str(MAX_TIMEOUT_MS))
LEFT = "the client left before its answer was ready"

Answer = TypeVar("Answer")


def read_timeout_s(value: str) -> float:
    """Seconds of the header X-Request-Timeout-Ms. Raises MalformedError."""
    digits = value.lstrip("0")
    if value.isascii() and digits.isdigit():
        # Longer than any service waits is as good as that, and a number of thousands of digits is not to be read.
        return (MAX_TIMEOUT_MS if len(digits) > MAX_TIMEOUT_DIGITS else min(int(digits), MAX_TIMEOUT_MS)) / 1000
    raise MalformedError(f"the header {TIMEOUT_HEADER} is {value!r}; send a whole number of milliseconds from 1 on")


def read_deadline(wish: str | None, now_s: float, limit_s: float) -> Deadline:
    """When a request that begins now must be answered: its wish in that header, or the limit. Raises MalformedError."""
    limit = of_service(now_s, limit_s)
    return limit if wish is None else limit.or_sooner(now_s, read_timeout_s(wish), TIMEOUT_HEADER)


async def read_body(request: Request, *, max_bytes: int, deadline_s: float) -> bytes:
    """The whole body: its announced length is judged before it comes in, and it is counted while it does.

    Raises BodyTooLargeError, MalformedError when it is encoded, RequestTimeoutError when it comes too slowly,
    ClientGoneError.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MalformedError("the body has a Content-Encoding; send it plain")
    if is_longer(request.headers.get("content-length", "").strip(), max_bytes):
        raise too_large(max_bytes)
    try:
        async with asyncio.timeout_at(deadline_s):
            return await _whole_body(request, max_bytes)
    except TimeoutError as error:
        raise RequestTimeoutError("the body did not arrive in time; send it faster") from error


async def _whole_body(request: Request, max_bytes: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await _receive(request)
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise too_large(max_bytes)
        more = message.get("more_body", False)
    return bytes(body)


async def _receive(request: Request) -> Message:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("the client left before its request was complete")
    return message


def is_longer(announced: str, max_bytes: int) -> bool:
    """Whether the header Content-Length says more; one that is no number is the server's to refuse."""
    return announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > max_bytes)


def too_large(max_bytes: int) -> BodyTooLargeError:
    """What is wrong with a body of more than `max_bytes`."""
    return BodyTooLargeError(
        f"the body has more than {max_bytes} bytes; send fewer texts at a time, or raise --max-body-bytes"
    )


async def unless_caller_leaves(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run `work`; cancel it when the caller disconnects, and do not begin it when that happened already.

    Call only after the body was read. Raises ClientGoneError then.
    """
    # After the body nothing comes but the news that the caller left.
    leaving = asyncio.ensure_future(request.receive())
    await asyncio.sleep(0)
    if leaving.done():
        work.close()
        raise ClientGoneError(LEFT)
    working = asyncio.create_task(work)
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError(LEFT)
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.wait((working, leaving))
