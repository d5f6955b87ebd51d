"""`POST /v1/predict`: what are these texts?"""

from fastapi import APIRouter, Request, Response

from service.asking import read_body, unless_caller_leaves
from service.deadlines import Deadline
from service.inputs import read_inputs
from service.openapi import error_responses, request_body
from service.predicting import Predicted
from service.probabilities import top_labels
from service.routes import reach
from service.schemas import PredictRequest, parse
from service.serving import ServingVariant
from sparsebert.answers import PredictAnswer, Prediction

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/predict",
    summary="Label texts with one variant",
    response_model=PredictAnswer,
    responses=error_responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=request_body("PredictRequest"),
)
async def predict(request: Request) -> Response:
    """One prediction for each input, in order."""
    serving = reach.serving(request)
    with serving.drain.admitted():
        deadline = reach.deadline(request)
        body = await read_body(request, max_bytes=serving.settings.max_body_bytes, deadline_s=deadline.at_s)
        asked = parse(PredictRequest, body, serving.settings.max_request_items)
        answer = await unless_caller_leaves(request, _answer(request, asked, deadline))
    return reach.json(answer, headers=reach.server_timing([("", answer.timings_ms)]))


async def _answer(request: Request, asked: PredictRequest, deadline: Deadline) -> PredictAnswer:
    serving, predictor = reach.serving(request), reach.predictor(request)
    inputs = read_inputs(asked.inputs, serving.settings.max_request_items, serving.settings.max_text_characters)
    reach.charge(request, len(inputs))
    variant = serving.find(asked.model, asked.variant)
    predicted = await predictor.predict(variant, inputs, truncate=asked.truncate, deadline=deadline)
    return PredictAnswer(
        model=variant.name.model,
        variant=variant.name.variant,
        version=variant.bundle.manifest.version,
        predictions=predictions(variant, predicted, asked.top_k),
        timings_ms=reach.timings(predicted),
    )


def predictions(variant: ServingVariant, predicted: Predicted, top_k: int | None) -> list[Prediction]:
    """What is said of each input, in order."""
    answers = []
    for encoding, probabilities_C in zip(predicted.encodings, predicted.probabilities_NC.tolist(), strict=True):
        scores = top_labels(probabilities_C, variant.bundle.manifest.labels, top_k)
        label, score = next(iter(scores.items()))
        answers.append(
            Prediction(
                label=label, score=score, scores=scores, tokens=encoding.num_tokens, truncated=encoding.truncated
            )
        )
    return answers
