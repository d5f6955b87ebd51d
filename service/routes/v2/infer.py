"""`POST /v2/models/{model}/infer`: what are these texts, in tensors?"""

import asyncio

from fastapi import APIRouter, Request, Response

from service.exchange import JSON_TYPE, Asked, Reply
from service.inputs import read_inputs
from service.oip.answering import Answerer, answer
from service.oip.reading import read_infer
from service.oip.schemas import InferAnswer
from service.oip.tensors import HEADER
from service.openapi import binary_body, error_responses
from service.routes import reach
from service.routes.v2.asked import ModelPath, VersionPath, find
from service.routes.v2.models import MODEL, VERSION
from service.serving import Serving

router = APIRouter(tags=["Open Inference Protocol"])

REFUSALS = error_responses(400, 404, 413, 422, 429, 500, 503, 504)
BODY = binary_body("InferRequest")


@router.post(
    MODEL + "/infer",
    summary="Label texts with a model",
    response_model=InferAnswer,
    responses=REFUSALS,
    openapi_extra=BODY,
)
async def infer(request: Request, model: ModelPath) -> Response:
    """Texts are BYTES, as JSON or as binary data after it; so are the outputs."""
    return await _infer(request, model, None)


@router.post(
    VERSION + "/infer",
    summary="Label texts with a variant",
    response_model=InferAnswer,
    responses=REFUSALS,
    openapi_extra=BODY,
)
async def infer_version(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Texts are BYTES, as JSON or as binary data after it; so are the outputs."""
    return await _infer(request, model, version)


async def _infer(request: Request, model: str, version: str | None) -> Response:
    head_length = request.headers.get(HEADER)

    async def answer_whole(serving: Serving, asked: Asked) -> Reply:
        return await _answer(serving, asked, model, version, head_length)

    return await reach.whole(request, answer_whole)


async def _answer(serving: Serving, asked: Asked, model: str, version: str | None, head_length: str | None) -> Reply:
    limits, deadline = serving.settings, asked.deadline
    read = read_infer(asked.body, head_length, limits.max_request_items)
    if read.timeout_s is not None:
        deadline = deadline.or_sooner(asyncio.get_running_loop().time(), read.timeout_s, "parameter timeout")
    inputs = read_inputs(read.inputs, limits.max_request_items, limits.max_text_characters)
    asked.charge(len(inputs))
    variant = find(serving, model, version, read.variant)
    predicted = await reach.predictor(serving, asked).predict(
        variant, inputs, truncate=read.truncate, deadline=deadline
    )
    manifest = variant.bundle.manifest
    who = Answerer(model=model, variant=variant.name.variant, bundle_version=manifest.version, labels=manifest.labels)
    num_truncated = sum(encoding.truncated for encoding in predicted.encodings)
    body, told_length = answer(read, who, predicted.probabilities_NC, num_truncated)
    timing = reach.server_timing([("", reach.timings(predicted))])
    if told_length is None:
        return Reply(body=body, headers=(*JSON_TYPE, timing))
    told = (HEADER.lower().encode(), str(told_length).encode())
    return Reply(body=body, headers=((b"content-type", b"application/octet-stream"), timing, told))
