"""How does the service describe itself to tools that read OpenAPI?

Knows nothing about how an answer is found.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.asking import TIMEOUT_HEADER
from service.gate import is_admin, is_open
from service.oip.schemas import ChangeRequest, IndexRequest, InferRequest
from service.schemas import CompareRequest, PredictRequest
from sparsebert.answers import ErrorAnswer

REFERENCE = "#/components/schemas/{model}"

TEXTS_EXAMPLE: dict[str, Any] = {"inputs": ["a gripping film", "dull and far too long"]}
TEXT_TENSOR: dict[str, Any] = {
    "name": "text",
    "shape": [2],
    "datatype": "BYTES",
    "data": ["a gripping film", "dull and far too long"],
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "PredictRequest": {
        "one text": {"value": {"inputs": "a gripping film"}},
        "several texts, one label each": {"value": {**TEXTS_EXAMPLE, "top_k": 1}},
        "a pair": {"value": {"inputs": {"text": "How old are you?", "text_pair": "What is your age?"}}},
        "a long text, cut": {"value": {"inputs": "a gripping film", "truncate": True}},
    },
    "CompareRequest": {
        "all variants": {"value": TEXTS_EXAMPLE},
        "two variants, five times": {"value": {**TEXTS_EXAMPLE, "variants": ["dense", "sparse"], "repeats": 5}},
    },
    "InferRequest": {
        "two texts": {"value": {"inputs": [TEXT_TENSOR]}},
        "a long text, cut; its label only": {
            "value": {"parameters": {"truncate": True}, "inputs": [TEXT_TENSOR], "outputs": [{"name": "label"}]}
        },
        "the two most probable classes": {
            "value": {
                "id": "42",
                "inputs": [TEXT_TENSOR],
                "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
            }
        },
        "a pair": {
            "value": {
                "inputs": [
                    {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["How old are you?"]},
                    {"name": "text_pair", "shape": [1], "datatype": "BYTES", "data": ["What is your age?"]},
                ]
            }
        },
    },
    "IndexRequest": {"what is ready": {"value": {"ready": True}}},
    "ChangeRequest": {"nothing to say": {"value": {}}},
}
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "Milliseconds after which the answer is of no use; the service's own limit may be sooner.",
    "schema": {"type": "integer", "minimum": 1},
}
DEADLINE: dict[str, Any] = {"parameters": [TIMEOUT_PARAMETER]}
STATUS_TEXTS = {
    400: "The request is malformed.",
    401: "There is no key with the request, or none of this service.",
    403: "The service does not let the caller do this.",
    404: "There is no such model or variant.",
    409: "The bundle in the models folder cannot be loaded; what served before still does.",
    413: "The body is too large.",
    422: "A text is too long, or there are too many.",
    429: "The queue is full, too many large bodies are held, or the rate limit is used up; see Retry-After.",
    500: "The model failed.",
    503: "The variant is not ready, or the service is stopping; see Retry-After.",
    504: "The answer was not ready in time.",
}


SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def request_body(schema: str, *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its own body."""
    content = {"schema": {"$ref": REFERENCE.format(model=schema)}, "examples": EXAMPLES[schema]}
    return {"requestBody": {"required": required, "content": {"application/json": content}}, **DEADLINE}


def binary_body(schema: str) -> dict[str, Any]:
    """The same for a route that also reads binary data after the JSON, or binary data alone."""
    extra = request_body(schema)
    extra["requestBody"]["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of the JSON when binary data follows it; 0 when the body is one text and nothing else.",
        "schema": {"type": "integer", "minimum": 0},
    }
    return {**extra, "parameters": [*extra["parameters"], length]}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with `statuses`."""
    return {status: {"model": ErrorAnswer, "description": STATUS_TEXTS[status]} for status in statuses}


def describe(app: FastAPI, *, keys: bool, limited: bool) -> dict[str, Any]:
    """The OpenAPI document of the app, with the bodies that the routes read themselves, and keys where it has any.

    `limited` says that callers may be told to come back later.
    """
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    read = (PredictRequest, CompareRequest, InferRequest, IndexRequest, ChangeRequest)
    requests = [(schema, "validation") for schema in read]
    _, schemas = models_json_schema(requests, ref_template=REFERENCE)  # type: ignore[arg-type]
    document["components"]["schemas"].update(schemas["$defs"])
    if keys:
        document["components"]["securitySchemes"] = SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values() if not is_open(path) else ():
            refusals = of_the_gate(path, keys=keys, limited=limited)
            operation["responses"] = {**refusals, **operation["responses"]}
            if keys:
                operation["security"] = [{scheme: []} for scheme in SCHEMES]
    return document


def of_the_gate(path: str, *, keys: bool, limited: bool) -> dict[str, Any]:
    """What the gate may answer before a route does."""
    statuses = [401] * keys + [403] * is_admin(path) + [429] * limited
    return {
        str(status): {
            "description": STATUS_TEXTS[status],
            "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model="ErrorAnswer")}}},
        }
        for status in statuses
    }
