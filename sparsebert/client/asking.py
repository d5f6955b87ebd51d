"""What is sent to the service, and what does its answer say?

Pure: values in, values out. Knows nothing about how they travel.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from sparsebert.client.errors import ClientError, RefusedError, UnexpectedAnswerError

FOLDER = "/v1/admin/models"
HALF = "a text has half of a character (a lone surrogate) in it, which cannot be sent; leave it out"

AnswerType = TypeVar("AnswerType", bound=BaseModel)


@dataclass(frozen=True)
class Pair:
    """Two texts that are one input, for models of pairs."""

    text: str
    text_pair: str


Input = str | Pair | Mapping[str, str]
Inputs = Input | Iterable[Input]


class _Refusal(BaseModel):
    error: str
    request_id: str | None = None


def predict_body(inputs: Inputs, *, model: str | None, variant: str | None, top_k: int | None, truncate: bool) -> bytes:
    """Body of `POST /v1/predict`."""
    return _body({"inputs": _written(inputs), "truncate": truncate} | _given(model=model, variant=variant, top_k=top_k))


def compare_body(
    inputs: Inputs,
    *,
    model: str | None,
    variants: Sequence[str] | None,
    baseline: str | None,
    repeats: int,
    top_k: int | None,
    truncate: bool,
) -> bytes:
    """Body of `POST /v1/compare`."""
    return _body(
        {"inputs": _written(inputs), "repeats": repeats, "truncate": truncate}
        | _given(model=model, variants=_names(variants), baseline=baseline, top_k=top_k)
    )


def change_path(model: str, variant: str, verb: str) -> str:
    """Path to load or unload a variant; a name stays one part of it, whatever is in it."""
    return f"{FOLDER}/{_as_part(model)}/variants/{_as_part(variant)}/{verb}"


def read_answer(schema: type[AnswerType], content: bytes) -> AnswerType:
    """The answer of a request that was not refused. Raises UnexpectedAnswerError."""
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        raise UnexpectedAnswerError(
            f"the answer is not one of this service ({error.error_count()} fields are wrong); check the address"
        ) from error


def refusal(status: int, content: bytes, request_id: str | None, retry_after_s: float | None) -> RefusedError:
    """What an answer says that is none; a proxy's has no sentence of ours."""
    try:
        told = _Refusal.model_validate_json(content)
    except ValidationError:
        sentence = "the server refused without a reason; is it this service, or a proxy?"
        return RefusedError(status, sentence, request_id, retry_after_s)
    return RefusedError(status, told.error, told.request_id or request_id, retry_after_s)


def _as_part(name: str) -> str:
    if not isinstance(name, str):
        raise ClientError(f"a name of a model or variant is {_kind(name)}; pass a str")
    try:
        return quote(name, safe="").replace(".", "%2E")  # `..` would lead out
    except UnicodeEncodeError as error:
        raise ClientError(HALF) from error


def _written(inputs: Inputs) -> object:
    if isinstance(inputs, str | Pair | Mapping):
        return _one(inputs)
    if isinstance(inputs, bytes | bytearray | memoryview) or not isinstance(inputs, Iterable):
        raise ClientError(f"inputs is {_kind(inputs)}; pass a str, a Pair, or a list of them")
    return [_one(one) for one in inputs]


def _one(value: Input) -> object:
    if isinstance(value, Pair):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else value


def _names(variants: Sequence[str] | None) -> list[str] | None:
    if variants is None:
        return None
    if isinstance(variants, str | bytes) or not isinstance(variants, Iterable):
        raise ClientError('variants is no list of names; pass one such as ["dense", "sparse"]')
    return list(variants)


def _body(fields: Mapping[str, object]) -> bytes:
    """The fields as JSON."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ClientError(HALF) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ClientError(f"a value cannot be sent as JSON ({error}); pass texts, and whole numbers") from error


def _kind(value: object) -> str:
    return f"of the type {type(value).__name__}"


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
