"""`GET /v1/models`: which variants are here, what are they and how do they fare?"""

from fastapi import APIRouter, Request, Response

from service.routes import reach
from service.schemas import ModelsAnswer, VariantAnswer
from service.serving import Serving, ServingVariant

router = APIRouter(tags=["models"])


@router.get("/v1/models", summary="List every variant", response_model=ModelsAnswer)
async def models(request: Request) -> Response:
    """Every variant of the models folder, also those that did not load."""
    return reach.json(list_variants(reach.serving(request)))


def list_variants(serving: Serving) -> ModelsAnswer:
    """In alphabetical order."""
    answers = []
    for name in serving.catalog.names:
        default = name == serving.catalog.default
        if name in serving.errors:
            error = serving.errors[name]
            answers.append(
                VariantAnswer(model=name.model, variant=name.variant, default=default, state="failed", error=error)
            )
        else:
            answers.append(_tell(serving.variants[name], default=default))
    return ModelsAnswer(variants=answers)


def _tell(variant: ServingVariant, *, default: bool) -> VariantAnswer:
    bundle, manifest = variant.bundle, variant.bundle.manifest
    alive = variant.batcher.alive
    return VariantAnswer(
        model=manifest.name,
        variant=manifest.variant,
        default=default,
        state="ready" if alive else "dead",
        error=None if alive else "its workers are dead; restart the service",
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
