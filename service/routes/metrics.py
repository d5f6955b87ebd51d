"""`GET /metrics`: the numbers that Prometheus reads."""

import time
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.memory import resident_bytes
from service.serving import Serving

router = APIRouter(tags=["health"])

Gather = Callable[[], Awaitable[bytes]]


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Text format 0.0.4."""
    gather: Gather = request.app.state.gather
    return Response(await gather(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def own_numbers(serving: Serving) -> bytes:
    """Those of this process."""
    serving.refresh_gauges(time.time())
    return serving.metrics.render(resident_bytes())
