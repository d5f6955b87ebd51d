"""`GET /v1/models`: which variants are here, what are they and how do they fare?"""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from service.errors import STOPPING
from service.routes import reach
from service.routing import VariantName
from service.serving import Serving
from sparsebert.answers import ModelsAnswer, VariantAnswer, VariantState

router = APIRouter(tags=["models"])


@dataclass(frozen=True, kw_only=True)
class State:
    """How a variant fares."""

    name: VariantState
    error: str | None


@router.get("/v1/models", summary="List every variant", response_model=ModelsAnswer)
async def models(request: Request) -> Response:
    """Every variant that the service knows, also those that did not load or are unloaded."""
    return reach.json(list_variants(reach.serving(request)))


def list_variants(serving: Serving) -> ModelsAnswer:
    """In alphabetical order."""
    return ModelsAnswer(variants=[_tell(serving, name) for name in serving.catalog.names])


def state_of(serving: Serving, name: VariantName) -> State:
    """How a variant fares, and what is wrong with it or with its last load."""
    error = serving.catalog.errors.get(name)
    variant = serving.variants.get(name)
    if variant is None:
        return State(name="failed" if name in serving.failures else "unloaded", error=error)
    if variant.batcher.alive:
        return State(name="ready", error=error)
    if serving.stopped:
        return State(name="stopping", error=STOPPING)
    return State(name="dead", error="its workers are dead; restart the service")


def _tell(serving: Serving, name: VariantName) -> VariantAnswer:
    default, state = name == serving.catalog.default, state_of(serving, name)
    variant = serving.variants.get(name)
    if variant is None:
        return VariantAnswer(
            model=name.model, variant=name.variant, default=default, state=state.name, error=state.error
        )
    bundle, manifest = variant.bundle, variant.bundle.manifest
    return VariantAnswer(
        model=manifest.name,
        variant=manifest.variant,
        default=default,
        state=state.name,
        error=state.error,
        version=manifest.version,
        labels=manifest.labels,
        pair=manifest.task.pair,
        precision=manifest.precision,
        batch_invariant=manifest.batch_invariant,
        max_sequence_length=manifest.max_sequence_length,
        parameters=manifest.size.parameters,
        encoder_sparsity=manifest.size.encoder_sparsity,
        macs=manifest.size.macs,
        quality=manifest.quality,
        parity=manifest.parity,
        file_bytes=bundle.file_bytes,
        memory_bytes=bundle.memory_bytes,
        load_s=round(bundle.load_s, 3),
        provider=bundle.engine.provider,
        nodes_on_cpu=bundle.engine.nodes_on_cpu,
        gpu_memory_bytes=bundle.gpu_memory_bytes,
    )
