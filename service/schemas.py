"""What do requests and answers look like on the wire?

Shapes only; knows nothing about how an answer is found.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from service.errors import MalformedError
from service.structure import check_num_tokens
from sparsebert.manifest import Parity, Quality

_ITEM_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {"text": {"type": "string"}, "text_pair": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
    ]
}
_INPUTS_SCHEMA: dict[str, Any] = {
    "anyOf": [*_ITEM_SCHEMA["anyOf"], {"type": "array", "items": _ITEM_SCHEMA, "minItems": 1}],
    "title": "Inputs",
    "description": 'One text, one {"text", "text_pair"}, or a list of either.',
}

# Any and not a union: `service.inputs` reads it and says in one sentence what is wrong where.
Inputs = Annotated[Any, WithJsonSchema(_INPUTS_SCHEMA)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
RequestType = TypeVar("RequestType", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    inputs: Inputs
    model: Name | None = Field(default=None, description="Model to ask; the default variant's when left out.")
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="How many labels `scores` lists, most probable first; all when left out."
    )
    truncate: bool = Field(
        default=False, description="Cut a text that is too long (longest first in a pair) instead of refusing it."
    )


class PredictRequest(_Request):
    """Body of `POST /v1/predict`."""

    variant: Name | None = Field(default=None, description="Variant to ask; the default when left out.")


class CompareRequest(_Request):
    """Body of `POST /v1/compare`."""

    variants: Annotated[tuple[Name, ...], Field(max_length=64, fail_fast=True)] | None = Field(
        default=None, description="Variants to compare, two at least; all ready ones of the model when left out."
    )
    baseline: Name | None = Field(
        default=None, description="Variant the others are held against; `dense` when there is one, else the first."
    )
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        default=1, description="How many times each variant runs; medians are over these."
    )


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
    """One variant in `GET /v1/models`; what is not known of a failed bundle is null."""

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
    """Answer of `GET /v1/models`."""

    variants: list[VariantAnswer]


class HealthAnswer(_Answer):
    """Answer of `/healthz` and `/readyz` when all is well."""

    status: Literal["ok", "ready"]


class ErrorAnswer(_Answer):
    """Answer of every refused request."""

    error: str
    request_id: str


def parse(schema: type[RequestType], body: bytes, max_items: int = 256) -> RequestType:
    """Read a body with at most `max_items` texts.

    Raises MalformedError with one sentence, or TooManyError for so many values that reading them would take long.
    """
    check_num_tokens(body, max_items)
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise MalformedError(_sentence(schema, error)) from error


def _sentence(schema: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, place = first["type"], ".".join(str(part) for part in first["loc"])
    if kind == "json_invalid":
        return f"the body is not valid JSON ({first['ctx']['error']})"
    if kind == "extra_forbidden":
        return f"the field {place!r} is unknown; the fields are {', '.join(schema.model_fields)}"
    if kind == "missing":
        return f"the field {place!r} is missing"
    if not place:
        return "the body must be a JSON object"
    return f"the field {place!r} is wrong: {first['msg'][0].lower()}{first['msg'][1:]}"
