"""`POST /v2/repository/...`: which models are there? Loading and unloading them is not enabled."""

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from service.asking import read_body
from service.errors import NotEnabledError
from service.oip import describing
from service.oip.schemas import IndexEntry, IndexRequest
from service.openapi import error_responses, request_body
from service.routes import reach
from service.routes.v2.asked import ModelPath
from service.schemas import ErrorAnswer, parse

router = APIRouter(tags=["Open Inference Protocol"])

ENTRIES = TypeAdapter(list[IndexEntry])
NOT_ENABLED = (
    "loading and unloading over HTTP is not enabled; put bundles into the models folder and start the service again"
)


@router.post(
    "/v2/repository/index",
    summary="List every variant",
    response_model=list[IndexEntry],
    responses=error_responses(400, 413, 422),
    openapi_extra=request_body("IndexRequest", required=False),
)
async def index(request: Request) -> Response:
    """Every variant of the models folder, also those that did not load; `version` is the variant."""
    serving = reach.serving(request)
    body = await read_body(request, max_bytes=serving.settings.max_body_bytes, deadline_s=reach.deadline(request).at_s)
    asked = parse(IndexRequest, body) if body else IndexRequest()
    entries = describing.index(serving, ready_only=asked.ready or False)
    return Response(ENTRIES.dump_json(entries), media_type="application/json")


@router.post(
    "/v2/repository/models/{model}/load",
    summary="Not enabled",
    status_code=403,
    response_model=ErrorAnswer,
    response_description="Always.",
)
async def load(model: ModelPath) -> Response:
    """Refuses."""
    del model
    raise NotEnabledError(NOT_ENABLED)


@router.post(
    "/v2/repository/models/{model}/unload",
    summary="Not enabled",
    status_code=403,
    response_model=ErrorAnswer,
    response_description="Always.",
)
async def unload(model: ModelPath) -> Response:
    """Refuses."""
    del model
    raise NotEnabledError(NOT_ENABLED)
