"""How does a route reach the running service, and how does it put an answer on the wire?"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from service.asking import TIMEOUT_HEADER, read_body, read_deadline, unless_caller_leaves
from service.deadlines import Deadline
from service.exchange import JSON_TYPE, Asked, Reply
from service.gate import BUCKET
from service.headers import Headers
from service.loading import Loader
from service.predicting import Predicted, Predictor
from service.serving import Serving

Handler = Callable[[Serving, Asked], Coroutine[Any, Any, Reply]]


def serving(request: Request) -> Serving:
    """The running service."""
    running: Serving = request.app.state.serving
    return running


def loader(request: Request) -> Loader:
    """What changes the running service."""
    running: Loader = request.app.state.loader
    return running


def deadline(request: Request) -> Deadline:
    """When a request that begins now must be answered. Raises MalformedError."""
    now_s, limit_s = asyncio.get_running_loop().time(), serving(request).settings.request_timeout_s
    return read_deadline(request.headers.get(TIMEOUT_HEADER), now_s, limit_s)


def predictor(serving: Serving, asked: Asked) -> Predictor:
    """Runs this request on variants."""
    return Predictor(clock_s=serving.clock_s, tokenizing=serving.tokenizing, record=asked.record)


async def whole(request: Request, handler: Handler) -> Response:
    """Read all of a request before `handler` answers it, which ends when the caller leaves."""
    running = serving(request)
    limits, state = running.settings, request.scope["state"]
    with running.drain.admitted():
        until = deadline(request)
        body = await read_body(request, max_bytes=limits.max_body_bytes, deadline_s=until.at_s)
        asked = Asked(
            headers=request.scope["headers"], body=body, deadline=until, record=state["record"], bucket=state[BUCKET]
        )
        return response(await unless_caller_leaves(request, handler(running, asked)))


def response(reply: Reply) -> Response:
    """The framework's form of it."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
    return Response(reply.body, reply.status, headers)


def json(answer: BaseModel) -> Response:
    """An answer as JSON."""
    return response(told(answer))


def told(answer: BaseModel | dict[str, Any], headers: Headers = ()) -> Reply:
    """The same of a request that came whole."""
    return Reply(body=to_json(answer), headers=(*JSON_TYPE, *headers))


def timings(predicted: Predicted) -> dict[str, float]:
    """Where the time of a request to one variant went, in the form of `Timings`."""
    return {
        "tokenize": milliseconds(predicted.tokenize_s),
        "queue": milliseconds(predicted.queue_s),
        "infer": milliseconds(predicted.infer_s),
        "total": milliseconds(predicted.total_s),
    }


def milliseconds(duration_s: float) -> float:
    """To the microsecond."""
    return round(duration_s * 1000, 3)


def server_timing(timings: Iterable[tuple[str, Mapping[str, float]]]) -> tuple[bytes, bytes]:
    """The header `Server-Timing`: milliseconds of each stage, each variant's with its name before it."""
    stages = [f"{prefix}{stage};dur={value:g}" for prefix, one in timings for stage, value in one.items()]
    return b"server-timing", ", ".join(stages).encode("latin-1")
