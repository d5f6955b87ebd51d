"""`POST /v2/models/{model}/infer`: what are these texts, in tensors?"""

import asyncio

from fastapi import APIRouter, Request, Response

from service.asking import read_body, unless_caller_leaves
from service.deadlines import Deadline
from service.inputs import read_inputs
from service.oip.answering import Answerer, answer
from service.oip.reading import AskedInference, read_infer
from service.oip.schemas import InferAnswer
from service.oip.tensors import HEADER
from service.openapi import binary_body, error_responses
from service.routes import reach
from service.routes.v2.asked import ModelPath, VersionPath, find
from service.routes.v2.models import MODEL, VERSION

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
    serving = reach.serving(request)
    with serving.drain.admitted():
        deadline = reach.deadline(request)
        limits = serving.settings
        body = await read_body(request, max_bytes=limits.max_body_bytes, deadline_s=deadline.at_s)
        asked = read_infer(body, request.headers.get(HEADER), limits.max_request_items)
        if asked.timeout_s is not None:
            now_s = asyncio.get_running_loop().time()
            deadline = deadline.or_sooner(now_s, asked.timeout_s, "parameter timeout")
        work = _answer(request, model, version, asked, deadline)
        return await unless_caller_leaves(request, work)


async def _answer(
    request: Request, model: str, version: str | None, asked: AskedInference, deadline: Deadline
) -> Response:
    serving, predictor = reach.serving(request), reach.predictor(request)
    inputs = read_inputs(asked.inputs, serving.settings.max_request_items, serving.settings.max_text_characters)
    reach.charge(request, len(inputs))
    variant = find(serving, model, version, asked.variant)
    predicted = await predictor.predict(variant, inputs, truncate=asked.truncate, deadline=deadline)
    manifest = variant.bundle.manifest
    who = Answerer(model=model, variant=variant.name.variant, bundle_version=manifest.version, labels=manifest.labels)
    num_truncated = sum(encoding.truncated for encoding in predicted.encodings)
    body, head_length = answer(asked, who, predicted.probabilities_NC, num_truncated)
    headers = reach.server_timing([("", reach.timings(predicted))])
    if head_length is None:
        return Response(body, media_type="application/json", headers=headers)
    return Response(body, media_type="application/octet-stream", headers={**headers, HEADER: str(head_length)})
