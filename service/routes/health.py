"""`GET /healthz`: should this process be restarted? `GET /readyz`: should it get requests?"""

from fastapi import APIRouter, Request, Response

from service.errors import NotReadyError
from service.openapi import error_responses
from service.routes import reach
from sparsebert.answers import HealthAnswer

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive?", response_model=HealthAnswer, responses=error_responses(503))
async def healthz(request: Request) -> Response:
    """503 when the workers are dead or a batch is stuck."""
    return _answer(reach.serving(request).unhealthy(), HealthAnswer(status="ok"))


@router.get("/readyz", summary="Ready for requests?", response_model=HealthAnswer, responses=error_responses(503))
async def readyz(request: Request) -> Response:
    """503 while the service stops, and when any variant cannot answer."""
    return _answer(reach.serving(request).not_ready(), HealthAnswer(status="ready"))


# Some probes ask for the head alone; what has a body is sent without it.
for path, handler in (("/healthz", healthz), ("/readyz", readyz)):
    router.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)


def _answer(reasons: list[str], good: HealthAnswer) -> Response:
    if reasons:
        raise NotReadyError("; ".join(reasons))
    return reach.json(good)
