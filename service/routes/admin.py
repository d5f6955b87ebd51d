"""`/v1/admin/...`: what lies in the models folder, and which of it is to serve?

Who may ask is decided before a request gets here.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.loading import Loader
from service.openapi import DEADLINE, error_responses
from service.routes import reach
from service.routes.models import state_of
from service.routing import VariantName, pick
from service.serving import Serving
from sparsebert.answers import FolderAnswer, FolderVariant, LoadAnswer, UnloadAnswer

router = APIRouter(tags=["admin"])

VARIANT = "/v1/admin/models/{model}/variants/{variant}"
PATHS = (("GET", "/v1/admin/models"), ("POST", f"{VARIANT}/load"), ("POST", f"{VARIANT}/unload"))

ModelPath = Annotated[str, Path(description="A model of the models folder.", examples=["demo"])]
VariantPath = Annotated[str, Path(description="One of its variants.", examples=["sparse"])]


@router.get("/v1/admin/models", summary="List the models folder", response_model=FolderAnswer)
async def folder(request: Request) -> Response:
    """Every variant that lies there now or that the service knows, loaded or not."""
    serving, loader = reach.serving(request), reach.loader(request)
    found = await loader.found()
    names = sorted({*found, *serving.catalog.names})
    variants = [_tell(serving, name, found=name in found, loading=name in loader.loading) for name in names]
    return reach.json(FolderAnswer(variants=variants))


@router.post(
    f"{VARIANT}/load",
    summary="Load a variant, or load it again",
    response_model=LoadAnswer,
    responses=error_responses(400, 404, 409, 503, 504),
    openapi_extra=DEADLINE,
)
async def load(request: Request, model: ModelPath, variant: VariantPath) -> Response:
    """Its bundle is verified, tested and warmed up beside what serves, and answers from then on."""
    loader = reach.loader(request)
    deadline_s = reach.deadline(request).at_s
    name = await _named(loader, model, variant)
    loaded = await loader.load(name, deadline_s)
    answer = LoadAnswer(
        model=name.model,
        variant=name.variant,
        version=loaded.version,
        former_version=loaded.former_version,
        load_s=round(loaded.load_s, 3),
        memory_bytes=loaded.memory_bytes,
    )
    return reach.json(answer)


@router.post(
    f"{VARIANT}/unload",
    summary="Unload a variant",
    response_model=UnloadAnswer,
    responses=error_responses(400, 404, 503, 504),
    openapi_extra=DEADLINE,
)
async def unload(request: Request, model: ModelPath, variant: VariantPath) -> Response:
    """Requests that run on it end on it; the answer waits for them and for its memory."""
    loader = reach.loader(request)
    deadline_s = reach.deadline(request).at_s
    name = await _named(loader, model, variant)
    unloaded = await loader.unload(name, deadline_s)
    answer = UnloadAnswer(
        model=name.model,
        variant=name.variant,
        former_version=unloaded.former_version,
        gone=unloaded.gone,
    )
    return reach.json(answer)


async def _named(loader: Loader, model: str, variant: str) -> VariantName:
    return pick(model, variant, await loader.names())


def _tell(serving: Serving, name: VariantName, *, found: bool, loading: bool) -> FolderVariant:
    state, variant = state_of(serving, name), serving.variants.get(name)
    return FolderVariant(
        model=name.model,
        variant=name.variant,
        default=name == serving.catalog.default,
        state=state.name,
        error=state.error,
        version=None if variant is None else variant.bundle.manifest.version,
        found=found,
        loading=loading,
    )
