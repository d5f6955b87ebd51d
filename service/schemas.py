"""What do requests look like on the wire? Answers are in `sparsebert.answers`.

Shapes only; knows nothing about how an answer is found.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from service.errors import MalformedError
from service.structure import check_num_tokens

_ITEM_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {"text": {"type": "string"}, "text_pair": {"type": ["string", "null"]}},
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
