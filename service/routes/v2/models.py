"""`GET /v2/models/{model}` and `.../ready`: what is a model, and can it answer?"""

from fastapi import APIRouter, Request, Response

from service.errors import STOPPING, DrainingError, NotReadyError
from service.oip import describing
from service.oip.names import read_name
from service.oip.schemas import ModelAnswer, ModelReadyAnswer
from service.openapi import error_responses
from service.routes import reach
from service.routes.v2.asked import ModelPath, VersionPath, find
from service.serving import Serving

router = APIRouter(tags=["Open Inference Protocol"])

MODEL = "/v2/models/{model}"
VERSION = "/v2/models/{model}/versions/{version}"


@router.get(MODEL, summary="What a model is", response_model=ModelAnswer, responses=error_responses(404, 503))
async def model(request: Request, model: ModelPath) -> Response:
    """Its tensors, and its variants as `versions`."""
    return reach.json(_tell(reach.serving(request), model, None))


@router.get(VERSION, summary="What a variant is", response_model=ModelAnswer, responses=error_responses(400, 404, 503))
async def version(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Its tensors and properties."""
    return reach.json(_tell(reach.serving(request), model, version))


@router.get(
    MODEL + "/ready", summary="Model ready?", response_model=ModelReadyAnswer, responses=error_responses(404, 503)
)
async def model_ready(request: Request, model: ModelPath) -> Response:
    """Whether the default variant can answer."""
    return reach.json(_ready(reach.serving(request), model, None))


@router.get(
    VERSION + "/ready",
    summary="Variant ready?",
    response_model=ModelReadyAnswer,
    responses=error_responses(400, 404, 503),
)
async def version_ready(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Whether the variant can answer."""
    return reach.json(_ready(reach.serving(request), model, version))


def _tell(serving: Serving, model: str, version: str | None) -> ModelAnswer:
    variant = find(serving, model, version)
    named = read_name(model, None, serving.catalog.names).variant
    of_model = [name.variant for name in serving.catalog.names if name.model == variant.name.model]
    return describing.model(model, variant, of_model if named is None else [named])


def _ready(serving: Serving, model: str, version: str | None) -> ModelReadyAnswer:
    variant = find(serving, model, version)
    if serving.drain.draining:
        raise DrainingError(STOPPING)
    if not variant.batcher.alive:
        raise NotReadyError(f"the workers of {variant.name} are dead; restart the service")
    return ModelReadyAnswer(name=model, ready=True)
