"""How does a route reach the running service, and how does it put an answer on the wire?"""

import asyncio
from collections.abc import Iterable, Mapping

from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from service.asking import TIMEOUT_HEADER, read_timeout_s
from service.deadlines import Deadline, of_service
from service.gate import BUCKET
from service.loading import Loader
from service.predicting import Predicted, Predictor
from service.rates import Bucket
from service.serving import Serving
from sparsebert.answers import Timings


def serving(request: Request) -> Serving:
    """The running service."""
    running: Serving = request.app.state.serving
    return running


def predictor(request: Request) -> Predictor:
    """Runs this request on variants."""
    running = serving(request)
    return Predictor(clock_s=running.clock_s, tokenizing=running.tokenizing, record=request.state.record)


def loader(request: Request) -> Loader:
    """What changes the running service."""
    running: Loader = request.app.state.loader
    return running


def deadline(request: Request) -> Deadline:
    """When a request that begins now must be answered: the caller's wish, or the limit. Raises MalformedError."""
    now_s = asyncio.get_running_loop().time()
    limit = of_service(now_s, serving(request).settings.request_timeout_s)
    wish = request.headers.get(TIMEOUT_HEADER)
    return limit if wish is None else limit.or_sooner(now_s, read_timeout_s(wish), TIMEOUT_HEADER)


def charge(request: Request, num_texts: int) -> None:
    """Take texts from what the caller may ask for; the first was taken when it was let in."""
    bucket: Bucket | None = request.scope["state"].get(BUCKET)
    if bucket is not None:
        bucket.spend(num_texts - 1)


def json(answer: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as JSON."""
    return Response(to_json(answer), status, headers, "application/json")


def timings(predicted: Predicted) -> Timings:
    """Where the time of a request to one variant went."""
    return Timings(
        tokenize=milliseconds(predicted.tokenize_s),
        queue=milliseconds(predicted.queue_s),
        infer=milliseconds(predicted.infer_s),
        total=milliseconds(predicted.total_s),
    )


def milliseconds(duration_s: float) -> float:
    """To the microsecond."""
    return round(duration_s * 1000, 3)


def server_timing(timings: Iterable[tuple[str, Timings]]) -> dict[str, str]:
    """The header `Server-Timing`: milliseconds of each stage, each variant's with its name before it."""
    stages = [f"{prefix}{stage};dur={value:g}" for prefix, one in timings for stage, value in one]
    return {"Server-Timing": ", ".join(stages)}
