"""`GET /v2/models/stats` and `GET /v2/models/{model}/stats`: what have variants done since they were loaded?"""

import time
from collections.abc import Iterable

from fastapi import APIRouter, Request, Response

from service.oip import describing
from service.oip.names import read_name
from service.oip.schemas import StatisticsAnswer
from service.openapi import error_responses
from service.routes import reach
from service.routes.v2.asked import ModelPath, VersionPath
from service.routes.v2.models import MODEL, VERSION
from service.routing import choose_model
from service.serving import Serving, ServingVariant

router = APIRouter(tags=["Open Inference Protocol"])


@router.get("/v2/models/stats", summary="Statistics of all", response_model=StatisticsAnswer)
async def statistics(request: Request) -> Response:
    """Every variant that is loaded."""
    serving = reach.serving(request)
    return reach.json(_tell(serving, [variant for _, variant in sorted(serving.variants.items())]))


@router.get(
    MODEL + "/stats",
    summary="Statistics of a model",
    response_model=StatisticsAnswer,
    responses=error_responses(404, 503),
)
async def model_statistics(request: Request, model: ModelPath) -> Response:
    """Every variant of the model that is loaded, or the one that is named."""
    serving = reach.serving(request)
    return reach.json(_tell(serving, _variants(serving, model, None)))


@router.get(
    VERSION + "/stats",
    summary="Statistics of a variant",
    response_model=StatisticsAnswer,
    responses=error_responses(400, 404, 503),
)
async def version_statistics(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """One variant."""
    serving = reach.serving(request)
    return reach.json(_tell(serving, _variants(serving, model, version)))


def _variants(serving: Serving, model: str, version: str | None) -> list[ServingVariant]:
    asked = read_name(model, version, serving.catalog.names)
    if asked.variant is not None:
        return [serving.find(asked.model, asked.variant)]
    of_model = choose_model(asked.model, serving.catalog.default, serving.catalog.names)
    return [variant for name, variant in sorted(serving.variants.items()) if name.model == of_model]


def _tell(serving: Serving, variants: Iterable[ServingVariant]) -> StatisticsAnswer:
    now_s, unix_s = serving.clock_s(), time.time()
    told = [describing.statistics(variant, now_s=now_s, unix_s=unix_s) for variant in variants]
    return StatisticsAnswer(model_stats=told)
