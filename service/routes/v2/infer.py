"""`POST /v2/models/{model}/infer`: what are these texts, in tensors?"""

import asyncio
import re
from functools import partial

from fastapi import APIRouter, Request, Response

from service.direct import Route
from service.exchange import JSON_TYPE, Asked, Reply, header
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
HEAD_LENGTH = HEADER.lower().encode()
# Names in a path that need no decoding.
_PATH = re.compile(r"/v2/models/([A-Za-z0-9._-]+)(?:/versions/([A-Za-z0-9._-]+))?/infer")


@router.post(
    MODEL + "/infer",
    summary="Label texts with a model",
    response_model=InferAnswer,
    responses=REFUSALS,
    openapi_extra=BODY,
)
async def infer(request: Request, model: ModelPath) -> Response:
    """Texts are BYTES, as JSON or as binary data after it; so are the outputs."""
    return await reach.whole(request, partial(answer_whole, model=model, version=None))


@router.post(
    VERSION + "/infer",
    summary="Label texts with a variant",
    response_model=InferAnswer,
    responses=REFUSALS,
    openapi_extra=BODY,
)
async def infer_version(request: Request, model: ModelPath, version: VersionPath) -> Response:
    """Texts are BYTES, as JSON or as binary data after it; so are the outputs."""
    return await reach.whole(request, partial(answer_whole, model=model, version=version))


async def answer_whole(serving: Serving, asked: Asked, *, model: str, version: str | None) -> Reply:
    """The same of a request that came whole."""
    limits, deadline = serving.settings, asked.deadline
    read = read_infer(asked.body, header(asked.headers, HEAD_LENGTH), limits.max_request_items)
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
    told = (HEAD_LENGTH, str(told_length).encode())
    return Reply(body=body, headers=((b"content-type", b"application/octet-stream"), timing, told))


def find_direct(path: str) -> Route | None:
    """Who answers a whole request to this path, if it is one of these."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    model, version = found.groups()
    template = (MODEL if version is None else VERSION) + "/infer"
    return Route(template=template, handler=partial(answer_whole, model=model, version=version))
