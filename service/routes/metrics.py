"""`GET /metrics`: the numbers that Prometheus reads."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.memory import resident_bytes
from service.routes import reach

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Text format 0.0.4."""
    serving = reach.serving(request)
    serving.refresh_gauges()
    text = serving.metrics.render(resident_bytes())
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
