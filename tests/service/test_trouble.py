"""What callers are told when the model fails, the queue is full, time is up, workers die or the service stops."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.encoding import EncodedBatch
from service.engine import EchoEngine
from service.opening import open_engine_with
from service.settings import Settings
from service.variants import load_catalog
from service.workers import MAX_DEATHS

WriteBundle = Callable[..., Path]


class Gate:
    """Holds the engine inside its first batch until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, batch: EncodedBatch) -> None:
        self.entered.set()
        assert self.opened.wait(timeout=30)


def app_with(models: Path, before_run: Callable[[EncodedBatch], None], **settings: object) -> FastAPI:
    """An app whose variant `dense` runs on a double."""
    chosen = Settings(models=models, threads=1, **settings)
    catalog = load_catalog(chosen, open_engine_with(chosen), time.monotonic)
    loaded = tuple(
        replace(bundle, engine=EchoEngine(before_run)) if bundle.name.variant == "dense" else bundle
        for bundle in catalog.loaded
    )
    return create_app(chosen, replace(catalog, loaded=loaded))


def test_a_model_that_fails_is_500_and_tells_nothing(models_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(batch: EncodedBatch) -> None:
        raise RuntimeError("secret of the engine")

    with TestClient(app_with(models_folder, fail), raise_server_exceptions=False) as client:
        response = client.post("/v1/predict", json={"inputs": "bad", "variant": "dense"})
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.json()["request_id"] in caplog.text
        assert "secret of the engine" in caplog.text
        assert client.post("/v1/predict", json={"inputs": "good", "variant": "sparse"}).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_an_exception_that_nobody_expected_is_500_and_tells_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    serving = client.app.state.serving
    tokenizer = serving.variants.pop(serving.catalog.default)
    response = client.post("/v1/predict", json={"inputs": "good"})
    assert response.status_code == 500
    assert response.json()["error"] == "the service failed on this request; its log tells more under the request id"
    assert "KeyError" in caplog.text
    serving.variants[serving.catalog.default] = tokenizer
    assert client.post("/v1/predict", json={"inputs": "good"}).status_code == 200


def test_a_full_queue_is_429(tmp_path: Path, write_bundle: Callable[..., Path]) -> None:
    write_bundle(tmp_path, batch_invariant=False)
    gate = Gate()
    app = app_with(tmp_path, gate, max_queue_items=2, max_request_items=2)
    with TestClient(app) as client, ThreadPoolExecutor() as threads:
        first = threads.submit(client.post, "/v1/predict", json={"inputs": ["good", "bad"]})
        assert gate.entered.wait(timeout=30)
        refused = client.post("/v1/predict", json={"inputs": ["fine", "fine"]})
        gate.opened.set()
        assert first.result(timeout=30).status_code == 200
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "the queue of reviews/dense is full: 1 texts of 3 tokens wait" in refused.json()["error"]
        assert client.post("/v1/predict", json={"inputs": "good"}).status_code == 200


def test_a_late_answer_is_504(models_folder: Path) -> None:
    gate = Gate()
    with TestClient(app_with(models_folder, gate, request_timeout_s=0.05)) as client:
        response = client.post("/v1/predict", json={"inputs": "good", "variant": "dense"})
        gate.opened.set()
        assert response.status_code == 504
        assert response.json()["error"] == (
            "reviews/dense did not answer within 0.05 s, the service's --request-timeout-s; "
            "send fewer texts at a time, or have it raised"
        )
        assert 'outcome="timeout",variant="dense",version="0123456789ab"} 1.0' in client.get("/metrics").text
        assert client.post("/v1/predict", json={"inputs": "good", "variant": "sparse"}).status_code == 200


def test_a_request_says_how_long_its_answer_is_of_use(models_folder: Path) -> None:
    gate = Gate()
    with TestClient(app_with(models_folder, gate)) as client:
        body, headers = {"inputs": "good", "variant": "dense"}, {"X-Request-Timeout-Ms": "50"}
        response = client.post("/v1/predict", json=body, headers=headers)
        gate.opened.set()
        assert response.status_code == 504
        assert response.json()["error"] == (
            "reviews/dense did not answer within 0.05 s, the request's own X-Request-Timeout-Ms; "
            "send fewer texts at a time, or allow more time"
        )
        assert 'outcome="impatient",variant="dense",version="0123456789ab"} 1.0' in client.get("/metrics").text
        for more in ("3600000", "3600001", "0050000", "9" * 5000):
            assert client.post("/v1/predict", json=body, headers={"x-request-timeout-ms": more}).status_code == 200


class Killed(BaseException):
    """No `Exception`: nothing but the worker itself catches it."""


def test_dead_workers_are_told_everywhere(models_folder: Path) -> None:
    def die(batch: EncodedBatch) -> None:
        raise Killed

    with TestClient(app_with(models_folder, die)) as client:
        answers = [client.post("/v1/predict", json={"inputs": "good"}) for _ in range(MAX_DEATHS + 2)]
        assert [answer.status_code for answer in answers] == [500] * MAX_DEATHS + [503, 503]
        assert answers[-1].headers["retry-after"] == "1"
        for path in ("/healthz", "/readyz"):
            health = client.get(path)
            assert health.status_code == 503
            assert "the workers of reviews/dense are dead" in health.json()["error"]
        assert [one["state"] for one in client.get("/v1/models").json()["variants"]] == ["dead", "dead"]
        assert 'sparsebert_model_ready{model="reviews",variant="dense"} 0.0' in client.get("/metrics").text


def test_a_comparison_with_what_did_not_load_may_succeed_later(tmp_path: Path, write_bundle: WriteBundle) -> None:
    write_bundle(tmp_path, variant="dense")
    write_bundle(tmp_path, variant="odd", golden_off_by=1.0)
    with TestClient(create_app(Settings(models=tmp_path, threads=1))) as client:
        answer = client.post("/v1/compare", json={"inputs": "good"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"].startswith(
            "comparing needs two variants of reviews that are ready, here is dense; reviews/odd did not load: "
        )


def test_a_service_that_stops_is_not_called_dead(models_folder: Path) -> None:
    gate, answers = Gate(), []
    with TestClient(app_with(models_folder, gate, drain_timeout_s=0.0)) as client:
        serving = client.app.state.serving
        body = {"inputs": "good", "variant": "dense"}
        waiting = threading.Thread(target=lambda: answers.append(client.post("/v1/predict", json=body)))
        waiting.start()
        assert gate.entered.wait(timeout=30)
        serving.drain.begin(0.0)
        assert serving.drain.is_late(0.0)
        client.portal.call(serving.close)
        waiting.join(timeout=30)
        assert (answers[0].status_code, answers[0].headers["retry-after"]) == (503, "1")
        assert client.get("/healthz").status_code == client.get("/v2/health/live").status_code == 200
        assert client.get("/readyz").json()["error"] == "the service is stopping"
        for variant in client.get("/v1/models").json()["variants"]:
            assert (variant["state"], variant["error"].split(";")[0]) == ("stopping", "the service is stopping")
        for entry in client.post("/v2/repository/index").json():
            assert (entry["state"], entry["reason"].split(";")[0]) == ("UNAVAILABLE", "the service is stopping")
        gate.opened.set()


def test_a_worker_that_dies_once_is_replaced(models_folder: Path) -> None:
    deaths = [Killed()]

    def die_once(batch: EncodedBatch) -> None:
        if deaths:
            raise deaths.pop()

    with TestClient(app_with(models_folder, die_once), raise_server_exceptions=False) as client:
        assert client.post("/v1/predict", json={"inputs": "good", "variant": "dense"}).status_code == 500
        assert client.post("/v1/predict", json={"inputs": "good"}).status_code == 200
        assert client.post("/v1/predict", json={"inputs": "good", "variant": "sparse"}).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_a_draining_service_admits_nothing_and_says_so(client: TestClient) -> None:
    client.app.state.serving.drain.begin(0.0)
    response = client.post("/v1/predict", json={"inputs": "good"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_requests_that_a_stop_ends_are_told_so(models_folder: Path) -> None:
    gate = Gate()
    with TestClient(app_with(models_folder, gate)) as client, ThreadPoolExecutor() as threads:
        body = {"inputs": "good", "variant": "dense"}
        waiting = [threads.submit(client.post, "/v1/predict", json=body) for _ in range(3)]
        assert gate.entered.wait(timeout=30)
        client.portal.call(client.app.state.serving.close)
        answers = [one.result(timeout=30) for one in waiting]
        gate.opened.set()
        assert [answer.status_code for answer in answers] == [503, 503, 503]
        assert answers[0].json()["error"].startswith("the service is stopping")
        assert answers[0].headers["retry-after"] == "1"


def test_a_caller_that_leaves_is_counted_and_its_text_dropped(models_folder: Path) -> None:
    gate = Gate()
    app = app_with(models_folder, gate)
    body = {"type": "http.request", "body": b'{"inputs": "good", "variant": "dense"}', "more_body": False}
    messages, sent = [body, {"type": "http.disconnect"}], []

    async def receive() -> dict:
        if len(messages) == 1:
            await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait)
        return messages.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    async def scenario() -> str:
        async with app.router.lifespan_context(app):
            scope = {
                "type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict", "headers": [],
                "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 1), "app": app,
            }  # fmt: skip
            await app(scope, receive, send)
            gate.opened.set()
            return app.state.serving.metrics.render(0).decode()

    metrics = asyncio.run(scenario())
    assert sent[0]["status"] == 499
    assert 'outcome="cancelled",variant="dense",version="0123456789ab"} 1.0' in metrics
    assert 'sparsebert_inflight_requests{model="reviews",variant="dense"} 0.0' in metrics
