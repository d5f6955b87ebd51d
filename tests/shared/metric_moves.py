"""How are the series that a request moves read, and how is it written which ones it must move?"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.encoding import EncodedBatch, FloatArray
from service.engine import Engine, Halt
from service.metrics import SIZES, TOKENS
from service.opening import open_engine_with
from service.settings import Settings
from service.variants import load_catalog

Series = tuple[str, frozenset[tuple[str, str]]]
Moved = Counter[Series]
Way = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
# How long something took, and what time itself moves.
UNCERTAIN = ("_seconds_sum", "_seconds_bucket", "process_", "heartbeat")
AWFUL, PLOT, VERY = 7, 9, 12
PREDICT, COMPARE, INFER = "/v1/predict", "/v1/compare", "/v2/models/{model}/infer"
LONG = "good " * 20


class Killed(BaseException):
    """No `Exception`: nothing but the worker itself catches it."""


class Moody:
    """Fails on "awful", holds a batch with "plot" until it is opened, kills its worker on "very"."""

    provider = "MoodyProvider"
    nodes_on_cpu = 0
    gpu = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.entered, self.opened = threading.Event(), threading.Event()

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        if AWFUL in batch.input_ids_BS:
            raise RuntimeError("in a bad mood")
        if VERY in batch.input_ids_BS:
            raise Killed
        if PLOT in batch.input_ids_BS:
            self.entered.set()
            assert self.opened.wait(timeout=60)
        return self._engine.run(batch, halt)


@contextmanager
def running(models: Path, way: Way) -> Iterator[tuple[httpx.Client, Moody]]:
    """`reviews` with the variants dense (moody), sparse, third, and odd, which does not load."""
    settings = Settings(models=models, threads=1, max_queue_items=2, max_request_items=2, max_body_bytes=1000)
    catalog = load_catalog(settings, open_engine_with(settings), lambda: 0.0)
    dense = Moody(catalog.loaded[0].engine)
    catalog = replace(catalog, loaded=(replace(catalog.loaded[0], engine=dense), *catalog.loaded[1:]))
    with way(create_app(settings, catalog)) as client:
        yield client, dense
        dense.opened.set()


def scrape(client: httpx.Client) -> Moved:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return Counter({(one.name, frozenset(one.labels.items())): one.value for two in families for one in two.samples})


@contextmanager
def moved(client: httpx.Client) -> Iterator[Moved]:
    """Filled, after the block, with what moved in it. Times of compares count as 1."""
    before, found = scrape(client), Counter()
    yield found
    after = scrape(client)
    assert after.keys() == before.keys()
    for one, value in after.items():
        if value != before[one] and not any(word in one[0] for word in UNCERTAIN) and "resident" not in one[0]:
            found[one] = 1 if "experiment_infer_seconds" in one[0] else value - before[one]
    found -= http("/metrics", 200, "GET")  # the first scrape itself


def series(name: str, **labels: str) -> Series:
    return f"sparsebert_{name}", frozenset(labels.items())


def histogram(name: str, buckets: tuple[int, ...], *values: int, **labels: str) -> Moved:
    ends = [(f"{one:.1f}", one) for one in buckets] + [("+Inf", float("inf"))]
    return Counter(
        {
            series(f"{name}_count", **labels): len(values),
            series(f"{name}_sum", **labels): sum(values),
            **{series(f"{name}_bucket", le=word, **labels): sum(v <= end for v in values) for word, end in ends},
        }
    )


def http(route: str, status: int, method: str = "POST") -> Moved:
    asked = {"method": method, "route": route}
    return Counter(
        [
            series("http_requests_total", status=str(status), **asked),
            series("http_request_duration_seconds_count", **asked),
        ]
    )


def ended(outcome: str, variant: str = "dense") -> Moved:
    who, version = {"model": "reviews", "variant": variant}, "0123456789ab"
    counted = Counter([series("inference_requests_total", version=version, outcome=outcome, **who)])
    timed = Counter([series("inference_request_duration_seconds_count", **who)])
    return counted + timed if outcome == "ok" else counted


def read(*tokens: int) -> Moved:
    return histogram("input_tokens", TOKENS, *tokens)


def rejected(reason: str) -> Moved:
    return Counter([series("rejections_total", reason=reason)])


def truncated(variant: str = "dense") -> Moved:
    return Counter([series("truncated_inputs_total", model="reviews", variant=variant)])


def computed(*tokens: int, variant: str = "dense") -> Moved:
    """One batch of texts, for one request."""
    who, padded = {"model": "reviews", "variant": variant}, len(tokens) * max(tokens)
    stages = ("tokenize", "queue", "infer", "postprocess")
    return (
        Counter(
            {
                series("inference_inputs_total", **who): len(tokens),
                series("inference_executions_total", **who): 1,
                series("tokens_total", kind="real", **who): sum(tokens),
                series("tokens_total", kind="padding", **who): padded - sum(tokens),
            }
        )
        + histogram("batch_size", SIZES, len(tokens), **who)
        + histogram("batch_tokens", TOKENS, padded, **who)
        + Counter([series("stage_duration_seconds_count", stage=stage, **who) for stage in stages])
    )


def compared(baseline: str, variant: str, *, agree: int = 0, disagree: int = 0) -> Moved:
    pair = {"model": "reviews", "baseline": baseline, "variant": variant}
    return +Counter(
        {
            series("experiment_pairs_total", result="agree", **pair): agree,
            series("experiment_pairs_total", result="disagree", **pair): disagree,
            series("experiment_infer_seconds_total", side="baseline", **pair): 1,
            series("experiment_infer_seconds_total", side="variant", **pair): 1,
        }
    )


def answered(*tokens: int, variant: str = "dense", times: int = 1) -> Moved:
    """A request that a variant answers, in one batch."""
    once = read(*tokens) + computed(*tokens, variant=variant) + ended("ok", variant)
    return Counter({one: count * times for one, count in once.items()})
