"""`POST /v1/compare`: what do several variants say of the same texts, and how fast?"""

from contextlib import ExitStack
from itertools import chain
from statistics import median

from fastapi import APIRouter, Request, Response

from service.comparison import AgainstBaseline, Comparison, Measured, alternating, choose_baseline, compare
from service.counted import Side, Verdict
from service.errors import MalformedError
from service.exchange import Asked, Reply
from service.inputs import read_inputs
from service.metrics import Metrics
from service.openapi import error_responses, request_body
from service.predicting import Predicted
from service.routes import reach
from service.routes.predict import predictions
from service.routes.reach import milliseconds
from service.schemas import CompareRequest, parse
from service.serving import Serving, ServingVariant
from sparsebert.answers import CompareAnswer, ComparedVariant, Prediction, Timings

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/compare",
    summary="Label texts with several variants of a model",
    response_model=CompareAnswer,
    responses=error_responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=request_body("CompareRequest"),
)
async def compare_variants(request: Request) -> Response:
    """The variants run one after the other, in alternating order over the repeats."""
    return await reach.whole(request, answer)


async def answer(serving: Serving, asked: Asked) -> Reply:
    """The same of a request that came whole."""
    read = parse(CompareRequest, asked.body, serving.settings.max_request_items)
    told = await _compare(serving, asked, read)
    timings = [(f"{name}-", one.timings_ms.model_dump()) for name, one in told.variants.items()]
    return reach.told(told, (reach.server_timing(timings),))


async def _compare(serving: Serving, asked: Asked, read: CompareRequest) -> CompareAnswer:
    predictor = reach.predictor(serving, asked)
    inputs = read_inputs(read.inputs, serving.settings.max_request_items, serving.settings.max_text_characters)
    variants = choose_variants(serving, read)
    asked.charge(len(inputs) * len(variants) * read.repeats)
    baseline = read.baseline or choose_baseline(list(variants))
    if baseline not in variants:
        raise MalformedError(f"the baseline {baseline!r} is not compared; choose among {', '.join(variants)}")
    runs: dict[str, list[Predicted]] = {name: [] for name in variants}
    with ExitStack() as leases:
        for variant in variants.values():
            leases.enter_context(variant.lease.held())
        for name in chain.from_iterable(alternating(list(variants), read.repeats)):
            run = await predictor.predict(variants[name], inputs, truncate=read.truncate, deadline=asked.deadline)
            runs[name].append(run)
    comparison = compare({name: _measured(variants[name], runs[name]) for name in variants}, baseline)
    _count(serving.metrics, variants, comparison)
    return _told(read, variants, runs, comparison)


def choose_variants(serving: Serving, asked: CompareRequest) -> dict[str, ServingVariant]:
    """The variants to compare, by name, at least two.

    Raises MalformedError where the request names fewer; where it names none and fewer are ready NotReadyError when
    there may be two soon, else UnknownVariantError.
    """
    if asked.variants is None:
        chosen = serving.ready_of(asked.model)
        if len(chosen) < 2:
            raise serving.too_few(asked.model)
    else:
        chosen = [serving.find(asked.model, name) for name in dict.fromkeys(asked.variants)]
    if len(chosen) < 2:
        named = f"only {chosen[0].name.variant}" if chosen else "none"
        raise MalformedError(f"comparing needs two different variants, variants names {named}")
    return {variant.name.variant: variant for variant in chosen}


def _count(metrics: Metrics, variants: dict[str, ServingVariant], comparison: Comparison) -> None:
    """Each variant beside the baseline; the label of a text counts once, the time of every repeat."""
    baseline, beside_itself = variants[comparison.baseline].name, comparison.variants[comparison.baseline]
    for name, beside in comparison.variants.items():
        if name == comparison.baseline:
            continue
        verdicts = {
            Verdict.AGREE: beside.num_agreeing,
            Verdict.DISAGREE: comparison.num_texts - beside.num_agreeing,
        }
        infer_s = {
            Side.BASELINE: beside_itself.total_infer_ms / 1000,
            Side.VARIANT: beside.total_infer_ms / 1000,
        }
        metrics.on_compared(baseline, variants[name].name, verdicts, infer_s)


def _measured(variant: ServingVariant, runs: list[Predicted]) -> Measured:
    return Measured(
        labels=variant.bundle.manifest.labels,
        probabilities_NC=runs[0].probabilities_NC,
        infer_ms=tuple(run.infer_s * 1000 for run in runs),
    )


def _told(
    asked: CompareRequest,
    variants: dict[str, ServingVariant],
    runs: dict[str, list[Predicted]],
    comparison: Comparison,
) -> CompareAnswer:
    return CompareAnswer(
        model=next(iter(variants.values())).name.model,
        baseline=comparison.baseline,
        repeats=asked.repeats,
        agreement=comparison.agreement,
        speedup={name: round(beside.speedup, 3) for name, beside in comparison.variants.items()},
        variants={
            name: _told_of(variant, runs[name], comparison.variants[name], asked.top_k)
            for name, variant in variants.items()
        },
    )


def _told_of(
    variant: ServingVariant, runs: list[Predicted], beside: AgainstBaseline, top_k: int | None
) -> ComparedVariant:
    return ComparedVariant(
        model=variant.name.model,
        variant=variant.name.variant,
        version=variant.bundle.manifest.version,
        predictions=[Prediction.model_validate(one) for one in predictions(variant, runs[0], top_k)],
        timings_ms=Timings(
            tokenize=milliseconds(median(run.tokenize_s for run in runs)),
            queue=milliseconds(median(run.queue_s for run in runs)),
            infer=round(beside.infer_ms, 3),
            total=milliseconds(median(run.total_s for run in runs)),
        ),
        agreement_with_baseline=beside.agreement,
        max_probability_difference=beside.max_probability_difference,
    )
