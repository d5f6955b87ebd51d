"""`POST /v1/predict`: what are these texts?"""

from fastapi import APIRouter, Request, Response

from service.exchange import Asked, Reply
from service.inputs import read_inputs
from service.openapi import error_responses, request_body
from service.predicting import Predicted
from service.probabilities import top_labels
from service.routes import reach
from service.schemas import PredictRequest, parse
from service.serving import Serving, ServingVariant
from sparsebert.answers import PredictAnswer

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
    return await reach.whole(request, answer)


async def answer(serving: Serving, asked: Asked) -> Reply:
    """The same of a request that came whole."""
    limits = serving.settings
    read = parse(PredictRequest, asked.body, limits.max_request_items)
    inputs = read_inputs(read.inputs, limits.max_request_items, limits.max_text_characters)
    asked.charge(len(inputs))
    variant = serving.find(read.model, read.variant)
    predicted = await reach.predictor(serving, asked).predict(
        variant, inputs, truncate=read.truncate, deadline=asked.deadline
    )
    timings_ms = reach.timings(predicted)
    # In the form of `PredictAnswer`, which it is not made to be: that takes three times as long.
    told = {
        "model": variant.name.model,
        "variant": variant.name.variant,
        "version": variant.bundle.manifest.version,
        "predictions": predictions(variant, predicted, read.top_k),
        "timings_ms": timings_ms,
    }
    return reach.told(told, (reach.server_timing([("", timings_ms)]),))


def predictions(variant: ServingVariant, predicted: Predicted, top_k: int | None) -> list[dict[str, object]]:
    """What is said of each input, in order, in the form of `Prediction`."""
    answers: list[dict[str, object]] = []
    for encoding, probabilities_C in zip(predicted.encodings, predicted.probabilities_NC.tolist(), strict=True):
        scores = top_labels(probabilities_C, variant.bundle.manifest.labels, top_k)
        label, score = next(iter(scores.items()))
        answers.append(
            {
                "label": label,
                "score": score,
                "scores": scores,
                "tokens": encoding.num_tokens,
                "truncated": encoding.truncated,
            }
        )
    return answers
