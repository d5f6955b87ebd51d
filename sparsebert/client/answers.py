"""What does the service answer, as typed values?

What a newer service says besides is passed over. Knows nothing about HTTP.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sparsebert.manifest import Parity, Quality


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Prediction(_Answer):
    """What one text is; `scores` are probabilities, most probable first."""

    label: str
    score: float
    scores: dict[str, float]
    tokens: int
    truncated: bool


class Timings(_Answer):
    """Where the time of a request went in the service, in milliseconds."""

    tokenize: float
    queue: float
    infer: float
    total: float


class PredictAnswer(_Answer):
    """One prediction for each input, in order."""

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
    """`agreement` is the share of inputs on which all variants say the same label."""

    model: str
    baseline: str
    repeats: int
    agreement: float
    speedup: dict[str, float]
    variants: dict[str, ComparedVariant]


class VariantAnswer(_Answer):
    """One variant of the service; what is not known of a failed bundle is None."""

    model: str
    variant: str
    default: bool
    state: Literal["ready", "failed", "dead"]
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
    """Every variant of the service."""

    variants: list[VariantAnswer]
