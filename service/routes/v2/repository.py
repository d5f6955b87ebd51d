"""`POST /v2/repository/...`: which models are there, and which of them are to serve?

Who may change them is decided before a request gets here.
"""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from service.asking import read_body
from service.errors import LoadError, MalformedError
from service.loading import Loader
from service.oip import describing
from service.oip.names import read_name
from service.oip.schemas import ChangeRequest, IndexEntry, IndexRequest
from service.openapi import error_responses, request_body
from service.routes import reach
from service.routes.v2.asked import ModelPath
from service.routing import VariantName, choose_model, pick
from service.schemas import parse

router = APIRouter(tags=["Open Inference Protocol"])

ENTRIES = TypeAdapter(list[IndexEntry])
MODEL = "/v2/repository/models/{model}"
# Nothing depends on a model.
PASSED_OVER = ("unload_dependents",)
AS_IT_LIES = "a bundle is loaded as it lies in the models folder: change it there"


@router.post(
    "/v2/repository/index",
    summary="List every variant",
    response_model=list[IndexEntry],
    responses=error_responses(400, 413, 422, 429, 504),
    openapi_extra=request_body("IndexRequest", required=False),
)
async def index(request: Request) -> Response:
    """Every variant that the service knows, also those that are not loaded; `version` is the variant."""
    serving = reach.serving(request)
    body = await read_body(request, max_bytes=serving.settings.max_body_bytes, deadline_s=reach.deadline(request).at_s)
    asked = parse(IndexRequest, body) if body else IndexRequest()
    entries = describing.index(serving, ready_only=asked.ready or False)
    return Response(ENTRIES.dump_json(entries), media_type="application/json")


@router.post(
    f"{MODEL}/load",
    summary="Load a model, or load it again",
    response_class=Response,
    responses=error_responses(400, 404, 409, 413, 422, 429, 503, 504),
    openapi_extra=request_body("ChangeRequest", required=False),
)
async def load(request: Request, model: ModelPath) -> Response:
    """Every variant of the model that lies in the models folder, one after the other, or the one that is named."""
    deadline_s = reach.deadline(request).at_s
    await _read(request, deadline_s)
    loader = reach.loader(request)
    found, known = await loader.found(), reach.serving(request).catalog.names
    names = _named(model, sorted({*found, *known}))
    # Of a whole model what is there now; of a variant that is named it is told when it is not.
    await _load_each(loader, [name for name in names if name in found] or names, deadline_s)
    return Response()


@router.post(
    f"{MODEL}/unload",
    summary="Unload a model",
    response_class=Response,
    responses=error_responses(400, 404, 413, 429, 503, 504),
    openapi_extra=request_body("ChangeRequest", required=False),
)
async def unload(request: Request, model: ModelPath) -> Response:
    """Every variant of the model, or the one that is named; requests that run on it end on it."""
    deadline_s = reach.deadline(request).at_s
    await _read(request, deadline_s)
    loader = reach.loader(request)
    for name in _named(model, await loader.names()):
        await loader.unload(name, deadline_s)
    return Response()


async def _read(request: Request, deadline_s: float) -> None:
    limit = reach.serving(request).settings.max_body_bytes
    body = await read_body(request, max_bytes=limit, deadline_s=deadline_s)
    asked = parse(ChangeRequest, body) if body else ChangeRequest()
    for name in asked.parameters or {}:
        if name not in PASSED_OVER:
            raise MalformedError(f"the parameter {name!r} is not taken; {AS_IT_LIES}")


def _named(model: str, available: Sequence[VariantName]) -> list[VariantName]:
    asked = read_name(model, None, available)
    if asked.variant is not None:
        return [pick(asked.model, asked.variant, available)]
    wanted = choose_model(asked.model, available[0], available)
    return [name for name in available if name.model == wanted]


async def _load_each(loader: Loader, names: Sequence[VariantName], deadline_s: float) -> None:
    failures = []
    for name in names:
        try:
            await loader.load(name, deadline_s)
        except LoadError as error:
            failures.append(str(error))
    if failures:
        raise LoadError("; ".join(failures))
