"""Are the answers to requests that come whole those that the framework would give?"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.opening import open_engine_with
from service.settings import Settings
from service.variants import load_catalog
from sparsebert.answers import PredictAnswer

Way = Callable[[FastAPI], AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path], ways: dict[str, Way]) -> Iterator:
    """A client through the framework, and one past it."""
    folder = tmp_path_factory.mktemp("both")
    for seed, variant in enumerate(("dense", "sparse")):
        write_bundle(folder, variant=variant, seed=seed)
    settings = Settings(models=folder, threads=1, max_body_bytes=1_000_000)
    with ways["through the framework"](create_app(settings)) as one, ways["whole"](create_app(settings)) as other:
        yield one, other


def told(answer: httpx.Response) -> tuple[int, dict, object]:
    """An answer but for times."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
    headers["server-timing"] = "".join(letter for letter in headers.get("server-timing", "") if letter.isalpha())
    body = answer.json()
    for one in (body, *body.get("variants", {}).values()):
        one.pop("timings_ms", None)
    return answer.status_code, headers, body


TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
ASKED = {
    "predict": ("/v1/predict", {"inputs": ["good", "the bad film"], "top_k": 1}),
    "another variant": ("/v1/predict", {"inputs": "good", "model": "reviews", "variant": "sparse"}),
    "compare": ("/v1/compare", {"inputs": "good"}),
    "tensors": ("/v2/models/reviews/infer", {"inputs": [TENSOR]}),
    "tensors of a version": ("/v2/models/reviews/versions/sparse/infer", {"inputs": [TENSOR]}),
    "tensors of no version": ("/v2/models/reviews/versions/nope/infer", {"inputs": [TENSOR]}),
}


@pytest.mark.parametrize("case", ASKED)
def test_answers_are_those_of_the_framework(both: tuple[httpx.Client, httpx.Client], case: str) -> None:
    path, body = ASKED[case]
    one, other = (client.post(path, json=body, headers={"x-request-id": "me"}) for client in both)
    assert {k: v for k, v in told(one)[2].items() if k != "speedup"} == {
        k: v for k, v in told(other)[2].items() if k != "speedup"
    }
    assert told(one)[:2] == told(other)[:2]
    assert one.status_code == (404 if "no version" in case else 200)


@pytest.mark.parametrize("value", ["0", "x", "1.5"])
def test_a_bad_wish_is_refused(both: tuple[httpx.Client, httpx.Client], value: str) -> None:
    one, other = (
        client.post(
            "/v1/predict", json={"inputs": "good"}, headers={"X-Request-Timeout-Ms": value, "x-request-id": "1"}
        )
        for client in both
    )
    assert told(one) == told(other)
    assert one.status_code == 400


def test_a_client_that_leaves_is_counted_and_its_text_dropped(models_folder: Path, ways: dict[str, Way]) -> None:
    settings = Settings(models=models_folder, threads=1)
    catalog = load_catalog(settings, open_engine_with(settings), lambda: 0.0)
    entered, halted = threading.Event(), threading.Event()

    class Held:
        provider, nodes_on_cpu, gpu = "HeldProvider", 0, None

        def run(self, batch: object, halt: object) -> object:
            del batch
            halt.on_request(halted.set)
            entered.set()
            assert halted.wait(timeout=60)
            raise RuntimeError("stopped")

    catalog = replace(catalog, loaded=(replace(catalog.loaded[0], engine=Held()), *catalog.loaded[1:]))
    with ways["whole"](create_app(settings, catalog)) as client:
        address = client.base_url.host, client.base_url.port
        body = b'{"inputs": "good"}'
        with socket.create_connection(address, timeout=60) as leaving:
            leaving.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            assert entered.wait(timeout=60)
        assert halted.wait(timeout=60)
        metrics = client.get("/metrics").text
    assert 'sparsebert_http_requests_total{method="POST",route="/v1/predict",status="499"} 1.0' in metrics
    cancelled = [line for line in metrics.splitlines() if 'outcome="cancelled"' in line and line.endswith(" 1.0")]
    assert len(cancelled) == 1


def test_the_json_of_an_answer_is_what_the_docs_say(both: tuple[httpx.Client, httpx.Client]) -> None:
    answer = both[1].post("/v1/predict", json={"inputs": ["good", "bad"]})
    assert PredictAnswer.model_validate(answer.json()).model_dump(mode="json") == answer.json()
    assert json.loads(answer.content) == answer.json()
