"""How does a route reach the running service, and how does it put an answer on the wire?"""

import asyncio
from collections.abc import Iterable, Mapping

from fastapi import Request, Response
from pydantic import BaseModel

from service.asking import TIMEOUT_HEADER, read_timeout_s
from service.loading import Loader
from service.schemas import Timings
from service.serving import Serving


def serving(request: Request) -> Serving:
    """The running service."""
    running: Serving = request.app.state.serving
    return running


def loader(request: Request) -> Loader:
    """What changes the running service."""
    running: Loader = request.app.state.loader
    return running


def deadline_s(request: Request) -> float:
    """When a request that begins now must be answered, in the event loop's time: the caller's wish, or the limit.

    Raises MalformedError.
    """
    limit_s = serving(request).settings.request_timeout_s
    wish = request.headers.get(TIMEOUT_HEADER)
    return asyncio.get_running_loop().time() + (limit_s if wish is None else min(limit_s, read_timeout_s(wish)))


def json(answer: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as JSON."""
    return Response(answer.model_dump_json(), status, headers, "application/json")


def server_timing(timings: Iterable[tuple[str, Timings]]) -> dict[str, str]:
    """The header `Server-Timing`: milliseconds of each stage, each variant's with its name before it."""
    stages = [f"{prefix}{stage};dur={value:g}" for prefix, one in timings for stage, value in one]
    return {"Server-Timing": ", ".join(stages)}
