"""How does the service describe itself to tools that read OpenAPI?

Knows nothing about how an answer is found.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.asking import MAX_TIMEOUT_MS, TIMEOUT_HEADER
from service.gate import is_open
from service.oip.schemas import IndexRequest, InferRequest
from service.schemas import CompareRequest, ErrorAnswer, PredictRequest

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
}
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "Milliseconds after which the answer is of no use; the service's own limit may be sooner.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
}
STATUS_TEXTS = {
    400: "The request is malformed.",
    401: "There is no key with the request, or none of this service.",
    403: "The service does not let the caller do this.",
    404: "There is no such model or variant.",
    413: "The body is too large.",
    422: "A text is too long, or there are too many.",
    429: "The queue is full, or the rate limit used up; see Retry-After.",
    500: "The model failed.",
    503: "The variant is not ready, or the service is stopping; see Retry-After.",
    504: "The answer was not ready in time.",
}


REFUSALS_OF_THE_GATE = {
    str(status): {
        "description": STATUS_TEXTS[status],
        "content": {"application/json": {"schema": {"$ref": REFERENCE.format(model="ErrorAnswer")}}},
    }
    for status in (401, 403, 429)
}


def request_body(schema: str, *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its own body."""
    content = {"schema": {"$ref": REFERENCE.format(model=schema)}, "examples": EXAMPLES[schema]}
    return {
        "requestBody": {"required": required, "content": {"application/json": content}},
        "parameters": [TIMEOUT_PARAMETER],
    }


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


def describe(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """The OpenAPI document of the app, with the bodies that the routes read themselves, and keys where it has any."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    requests = [(schema, "validation") for schema in (PredictRequest, CompareRequest, InferRequest, IndexRequest)]
    _, schemas = models_json_schema(requests, ref_template=REFERENCE)  # type: ignore[arg-type]
    document["components"]["schemas"].update(schemas["$defs"])
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if not is_open(path):
                for operation in operations.values():
                    operation["security"] = [{"key": []}]
                    operation["responses"] = {**REFUSALS_OF_THE_GATE, **operation["responses"]}
    return document
