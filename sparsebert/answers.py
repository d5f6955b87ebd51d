"""What does the service answer, as typed values?

The one source for the service, which fills them, and for its client, which passes over what a newer service says
besides. Knows nothing about HTTP.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sparsebert.manifest import Parity, Quality

VariantState = Literal["ready", "failed", "dead", "unloaded", "stopping"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Prediction(_Answer):
    """What one text is."""

    label: str
    score: float
    scores: dict[str, float]
    tokens: int
    truncated: bool


class Timings(_Answer):
    """Where the time of a request went, in milliseconds."""

    tokenize: float
    queue: float
    infer: float
    total: float


class PredictAnswer(_Answer):
    """Answer of `POST /v1/predict`: one prediction for each input, in order."""

    model: str
    variant: str
    version: str
    predictions: list[Prediction]
    timings_ms: Timings


class ComparedVariant(PredictAnswer):
    """What one variant answers, and how it stands beside the baseline; timings are medians over the repeats."""

    agreement_with_baseline: float
    max_probability_difference: float | None


class CompareAnswer(_Answer):
    """Answer of `POST /v1/compare`; `agreement` is the share of inputs on which all variants say the same label."""

    model: str
    baseline: str
    repeats: int
    agreement: float
    speedup: dict[str, float]
    variants: dict[str, ComparedVariant]


class VariantAnswer(_Answer):
    """One variant in `GET /v1/models`; what is not known of a bundle that is not loaded is null.

    `error` of one that is ready or unloaded says why its last load failed.
    """

    model: str
    variant: str
    default: bool
    state: VariantState
    error: str | None = None
    version: str | None = None
    labels: tuple[str, ...] | None = None
    pair: bool | None = None
    precision: str | None = None
    batch_invariant: bool | None = None
    max_sequence_length: int | None = None
    parameters: int | None = None
    encoder_sparsity: float | None = None
    macs: int | None = None
    quality: Quality | None = None
    parity: Parity | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None
    load_s: float | None = None
    provider: str | None = None
    nodes_on_cpu: int | None = None
    gpu_memory_bytes: int | None = None


class ModelsAnswer(_Answer):
    """Answer of `GET /v1/models`."""

    variants: list[VariantAnswer]


class FolderVariant(_Answer):
    """One variant in `GET /v1/admin/models`; `found` says that its bundle lies in the models folder now."""

    model: str
    variant: str
    default: bool
    state: VariantState
    error: str | None
    version: str | None
    found: bool
    loading: bool


class FolderAnswer(_Answer):
    """Answer of `GET /v1/admin/models`."""

    variants: list[FolderVariant]


class LoadAnswer(_Answer):
    """Answer of a load; `former_version` is what served before it."""

    model: str
    variant: str
    version: str
    former_version: str | None
    load_s: float
    memory_bytes: int


class UnloadAnswer(_Answer):
    """Answer of an unload; `former_version` is what served before it.

    `gone` says that its last request has ended and its memory is given back.
    """

    model: str
    variant: str
    former_version: str | None
    gone: bool


class HealthAnswer(_Answer):
    """Answer of `/healthz` and `/readyz` when all is well."""

    status: Literal["ok", "ready"]


class ErrorAnswer(_Answer):
    """Answer of every refused request."""

    error: str
    request_id: str
