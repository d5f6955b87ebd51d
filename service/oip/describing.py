"""How are variants told in the protocol's terms: their tensors, properties, states and statistics?

Pure but for what it reads of the running service. Knows nothing about HTTP.
"""

import json
from collections.abc import Mapping, Sequence

from service.errors import STOPPING
from service.oip.reading import TEXT, TEXT_PAIR
from service.oip.schemas import (
    BatchStatistics,
    DurationAnswer,
    IndexEntry,
    InferenceStatistics,
    MetadataTensor,
    ModelAnswer,
    ModelStatistics,
    ServerAnswer,
)
from service.routing import VariantName
from service.serving import Serving, ServingVariant
from service.statistics import Duration, Total
from sparsebert import __version__

PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("binary_tensor_data", "classification", "model_repository", "parameters", "statistics")
DEAD = "the workers are dead; restart the service"
UNLOADED = "unloaded"
_NONE = DurationAnswer(count=0, ns=0)


def server() -> ServerAnswer:
    """What the server is."""
    return ServerAnswer(name="sparsebert", version=__version__, extensions=EXTENSIONS)


def model(asked: str, variant: ServingVariant, variants: Sequence[str]) -> ModelAnswer:
    """What a variant is; `asked` is the name it was asked for by, `variants` what may be asked for as its version."""
    manifest, bundle = variant.bundle.manifest, variant.bundle
    texts = (TEXT, TEXT_PAIR) if manifest.task.pair else (TEXT,)
    return ModelAnswer(
        name=asked,
        versions=list(variants),
        platform=PLATFORM,
        inputs=[MetadataTensor(name=name, datatype="BYTES", shape=[-1]) for name in texts],
        outputs=[
            MetadataTensor(name="label", datatype="BYTES", shape=[-1]),
            MetadataTensor(name="score", datatype="FP32", shape=[-1]),
            MetadataTensor(name="probabilities", datatype="FP32", shape=[-1, len(manifest.labels)]),
        ],
        properties={
            "variant": manifest.variant,
            "bundle_version": manifest.version,
            "labels": json.dumps(manifest.labels, ensure_ascii=False),
            "precision": manifest.precision,
            "provider": bundle.engine.provider,
            "nodes_on_cpu": str(bundle.engine.nodes_on_cpu),
            "max_sequence_length": str(manifest.max_sequence_length),
            "encoder_sparsity": str(manifest.size.encoder_sparsity),
        },
    )


def index(serving: Serving, *, ready_only: bool) -> list[IndexEntry]:
    """Every variant that the service knows, in alphabetical order."""
    entries = [_entry(name, serving) for name in serving.catalog.names]
    return [entry for entry in entries if entry.state == "READY" or not ready_only]


def _entry(name: VariantName, serving: Serving) -> IndexEntry:
    variant, error = serving.variants.get(name), serving.catalog.errors.get(name, "")
    if variant is None:
        return IndexEntry(name=name.model, version=name.variant, state="UNAVAILABLE", reason=error or UNLOADED)
    if not variant.batcher.alive:
        return IndexEntry(
            name=name.model, version=name.variant, state="UNAVAILABLE", reason=STOPPING if serving.stopped else DEAD
        )
    return IndexEntry(name=name.model, version=name.variant, state="READY", reason=error)


def statistics(variant: ServingVariant, *, now_s: float, unix_s: float) -> ModelStatistics:
    """Totals of a variant. Its stage `tokenize` is the protocol's `compute_input`, `postprocess` `compute_output`."""
    totals = variant.metrics.statistics.totals()
    last_s = None if totals.last_end_s is None else unix_s - (now_s - totals.last_end_s)
    return ModelStatistics(
        name=variant.name.model,
        version=variant.name.variant,
        last_inference=0 if last_s is None else round(last_s * 1000),
        inference_count=totals.num_inputs,
        execution_count=totals.num_batches,
        inference_stats=_requests(totals.requests),
        batch_stats=[
            BatchStatistics(batch_size=size, compute_input=_NONE, compute_infer=_told(one), compute_output=_NONE)
            for size, one in totals.batches.items()
        ],
    )


def _requests(totals: Mapping[Total, Duration]) -> InferenceStatistics:
    return InferenceStatistics(
        success=_told(totals[Total.SUCCESS]),
        fail=_told(totals[Total.FAIL]),
        queue=_told(totals[Total.QUEUE]),
        compute_input=_told(totals[Total.TOKENIZE]),
        compute_infer=_told(totals[Total.INFER]),
        compute_output=_told(totals[Total.POSTPROCESS]),
        cache_hit=_NONE,
        cache_miss=_NONE,
    )


def _told(duration: Duration) -> DurationAnswer:
    return DurationAnswer(count=duration.count, ns=round(duration.total_s * 1e9))
