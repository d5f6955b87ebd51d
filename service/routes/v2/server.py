"""`GET /v2` and `GET /v2/health/...`: what is this server, does it live, and should it get requests?"""

from fastapi import APIRouter, Request, Response

from service.errors import NotReadyError
from service.oip import describing
from service.oip.schemas import LiveAnswer, ReadyAnswer, ServerAnswer
from service.openapi import error_responses
from service.routes import reach

router = APIRouter(tags=["Open Inference Protocol"])


@router.get("/v2", summary="What the server is", response_model=ServerAnswer)
async def server() -> Response:
    """Name, version and the extensions of the protocol that are had."""
    return reach.json(describing.server())


@router.get("/v2/health/live", summary="Alive?", response_model=LiveAnswer, responses=error_responses(503))
async def live(request: Request) -> Response:
    """As `/healthz`."""
    _check(reach.serving(request).unhealthy())
    return reach.json(LiveAnswer(live=True))


@router.get("/v2/health/ready", summary="Ready?", response_model=ReadyAnswer, responses=error_responses(503))
async def ready(request: Request) -> Response:
    """As `/readyz`."""
    _check(reach.serving(request).not_ready())
    return reach.json(ReadyAnswer(ready=True))


def _check(reasons: list[str]) -> None:
    if reasons:
        raise NotReadyError("; ".join(reasons))
