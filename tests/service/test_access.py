"""Each request is one line of numbers and names, as JSON with its id; never a text of a client."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.access import AccessLine
from service.app import create_app
from service.logs import json_formatter
from service.settings import Settings

TIMED = {"timestamp", "duration_ms", "tokenize_ms", "queue_ms", "infer_ms"}
REQUEST = {"level": "info", "logger": "service.access", "event": "request", "request_id": "me", "method": "POST"}
DENSE = {"model": "reviews", "variant": "dense", "version": "0123456789ab"}
Read = Callable[[], list[dict]]


@pytest.fixture
def read(caplog: pytest.LogCaptureFixture) -> Iterator[Read]:
    """What was logged since it was asked last."""
    caplog.set_level(logging.INFO, "service")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter())
    logging.getLogger("service").addHandler(handler)

    def lines() -> list[dict]:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in text.splitlines()]

    yield lines
    logging.getLogger("service").removeHandler(handler)


@pytest.fixture
def client(models_folder: Path) -> Iterator[TestClient]:
    settings = Settings(models=models_folder, threads=1, access_log=True)
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"x-request-id": "me"}) as running:
        yield running


def ended(route: str, status: int, **more: object) -> dict:
    return {**REQUEST, "route": route, "status": status, **more}


LINES = {
    "two texts": (
        "/v1/predict",
        {"inputs": ["good", "good " * 20], "truncate": True},
        ended("/v1/predict", 200, **DENSE, num_texts=2, tokens=19, truncated=1, batch_size=2),
    ),
    "a compare": (
        "/v1/compare",
        {"inputs": "good", "repeats": 2},
        ended(
            "/v1/compare", 200, **{**DENSE, "variant": "dense,sparse"}, num_texts=4, tokens=12, truncated=0,
            batch_size=1,
        ),
    ),
    "tensors": (
        "/v2/models/reviews/versions/sparse/infer",
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good film"]}]},
        ended(
            "/v2/models/{model}/versions/{version}/infer", 200, **{**DENSE, "variant": "sparse"}, num_texts=1,
            tokens=4, truncated=0, batch_size=1,
        ),
    ),
    "too long": (
        "/v1/predict",
        {"inputs": "good " * 20},
        ended("/v1/predict", 422, **DENSE, num_texts=1, tokens=16, truncated=1),
    ),
    "malformed": ("/v1/predict", {"inputs": 3}, ended("/v1/predict", 400)),
    "no such path": ("/good/film", {}, ended("unmatched", 404)),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_a_request_is_a_line(client: TestClient, read: Read, case: str) -> None:
    path, body, expected = LINES[case]
    client.post(path, json=body)
    [line] = read()
    assert "good" not in json.dumps(line)
    assert line["duration_ms"] >= sum(line[name] for name in TIMED & line.keys() - {"timestamp", "duration_ms"})
    assert {name: value for name, value in line.items() if name not in TIMED} == expected


def test_probes_are_no_lines(client: TestClient, read: Read) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/reviews/ready"):
        assert client.get(path).status_code == 200
    assert read() == []
    client.get("/v1/models")
    assert [(line["method"], line["route"]) for line in read()] == [("GET", "/v1/models")]


def test_a_failure_is_one_line_with_the_id_of_its_request(client: TestClient, read: Read) -> None:
    client.app.state.serving.variants.clear()
    client.post("/v1/predict", json={"inputs": "good"})
    failure, request = read()
    assert (failure["level"], failure["request_id"], failure["event"]) == ("error", "me", "request me failed")
    assert failure["exception"].splitlines()[-1].startswith("KeyError")
    assert "good" not in json.dumps(failure)
    assert request["status"] == 500


def test_lines_beside_requests(read: Read) -> None:
    logging.getLogger("service.cli").warning("%d of 3 variants failed", 1)
    [line] = read()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "warning", "logger": "service.cli", "event": "1 of 3 variants failed"}


def test_a_line_to_be_read() -> None:
    line = AccessLine(method="POST", status=200, duration_ms=1.5)
    assert str(line) == "request method=POST status=200 duration_ms=1.5"
