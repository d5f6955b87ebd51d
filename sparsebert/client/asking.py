"""What is sent to the service, and what does its answer say?

Pure: values in, values out. Knows nothing about how they travel.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from sparsebert.client.errors import RefusedError, UnexpectedAnswerError

FOLDER = "/v1/admin/models"

AnswerType = TypeVar("AnswerType", bound=BaseModel)


@dataclass(frozen=True)
class Pair:
    """Two texts that are one input, for models of pairs."""

    text: str
    text_pair: str


Inputs = str | Pair | Sequence[str | Pair]


class _Refusal(BaseModel):
    error: str
    request_id: str | None = None


def predict_body(
    inputs: Inputs, *, model: str | None, variant: str | None, top_k: int | None, truncate: bool
) -> dict[str, object]:
    """Body of `POST /v1/predict`."""
    return {"inputs": _written(inputs), "truncate": truncate} | _given(model=model, variant=variant, top_k=top_k)


def compare_body(
    inputs: Inputs,
    *,
    model: str | None,
    variants: Sequence[str] | None,
    baseline: str | None,
    repeats: int,
    top_k: int | None,
    truncate: bool,
) -> dict[str, object]:
    """Body of `POST /v1/compare`."""
    chosen = None if variants is None else list(variants)
    return {"inputs": _written(inputs), "repeats": repeats, "truncate": truncate} | _given(
        model=model, variants=chosen, baseline=baseline, top_k=top_k
    )


def change_path(model: str, variant: str, verb: str) -> str:
    """Path to load or unload a variant; a name stays one part of it, whatever is in it."""
    return f"{FOLDER}/{_as_part(model)}/variants/{_as_part(variant)}/{verb}"


def read_answer(schema: type[AnswerType], status: int, content: bytes, request_id: str | None) -> AnswerType:
    """The answer of a request. Raises RefusedError or UnexpectedAnswerError."""
    if status != 200:
        raise refusal(status, content, request_id)
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        raise UnexpectedAnswerError(
            f"the answer is not one of this service ({error.error_count()} fields are wrong); check the address"
        ) from error


def refusal(status: int, content: bytes, request_id: str | None) -> RefusedError:
    """What an answer says that is none; a proxy's has no sentence of ours."""
    try:
        told = _Refusal.model_validate_json(content)
    except ValidationError:
        return RefusedError(status, "the server refused without a reason; is it this service, or a proxy?", request_id)
    return RefusedError(status, told.error, told.request_id or request_id)


def _as_part(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")  # `..` would lead out


def _written(inputs: Inputs) -> object:
    if isinstance(inputs, str):
        return inputs
    if isinstance(inputs, Pair):
        return asdict(inputs)
    return [asdict(one) if isinstance(one, Pair) else one for one in inputs]


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
