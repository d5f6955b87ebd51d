"""Every refusal is one sentence with its status, and after each the service still answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service import errors
from service.app import ROUTERS, create_app
from service.asking import is_longer
from service.errors import ServiceError
from service.gate import is_admin
from service.refusing import ERROR_STATUS
from service.settings import Settings

HUGE = b'{"inputs": "' + b"x" * 10_000_000 + b'"}'

REFUSED = {
    "broken JSON": (b'{"inputs": "good"', 400, "not valid JSON"),
    "no body": (b"", 400, "not valid JSON"),
    "not an object": (b'["good"]', 400, "must be a JSON object"),
    "no inputs": (b"{}", 400, "'inputs' is missing"),
    "empty list": (b'{"inputs": []}', 400, "empty list"),
    "empty text": (b'{"inputs": ""}', 400, "inputs is empty"),
    "blank text": (b'{"inputs": ["good", " "]}', 400, "inputs[1] is empty"),
    "10 MB": (HUGE, 413, "more than 1000000 bytes"),
    "100,000 characters, one word": (
        b'{"inputs": "' + b"a" * 100_000 + b'", "truncate": true}',
        422,
        "has a text of 100000 characters, the limit is",
    ),
    "invisible characters": (b'{"inputs": ["good", "\\u200b\\ufeff"]}', 400, "inputs[1] is empty for the model"),
    "100,000 characters": (b'{"inputs": "' + b"good " * 20_000 + b'"}', 422, "has a text of 100000 characters"),
    "40,000 characters": (b'{"inputs": "' + b"good " * 8000 + b'"}', 422, "8002 tokens, the limit is 16"),
    "unknown variant": (b'{"inputs": "good", "variant": "nope"}', 404, "it has dense, sparse"),
    "unknown model": (b'{"inputs": "good", "model": "nope"}', 404, "there is reviews"),
    "NaN as text": (b'{"inputs": NaN}', 400, "not a number"),
    "NaN as number": (b'{"inputs": "good", "top_k": NaN}', 400, "valid integer"),
    "a number as text": (b'{"inputs": 3}', 400, "not a number"),
    "a text as number": (b'{"inputs": "good", "top_k": "3"}', 400, "valid integer"),
    "zero labels": (b'{"inputs": "good", "top_k": 0}', 400, "greater than or equal to 1"),
    "a number as flag": (b'{"inputs": "good", "truncate": 1}', 400, "valid boolean"),
    "unknown field": (b'{"inputs": "good", "topk": 3}', 400, "'topk' is unknown"),
    "1,000 items": (json.dumps({"inputs": ["good"] * 1000}).encode(), 422, "1000 texts, the limit is 256"),
    "lone surrogate": (b'{"inputs": "\\ud800"}', 400, "not valid JSON"),
    "raw surrogate": (b'{"inputs": "\xed\xa0\x80"}', 400, "not valid JSON"),
    "NUL": (b'{"inputs": "good\\u0000film"}', 400, "NUL character at position 4"),
    "not UTF-8": (b'{"inputs": "\xff"}', 400, "not valid JSON"),
    "deep nesting": (b'{"inputs": ' + b"[" * 2_000, 400, "recursion limit"),
    "very deep nesting": (b'{"inputs": ' + b"[" * 100_000, 422, "more values than a request of 256 texts needs"),
    "deep objects": (b'{"inputs": ' + b'{"text":' * 400, 400, "recursion limit"),
    "an integer of a million digits": (b'{"inputs": ' + b"9" * 990_000 + b"}", 400, "number out of range"),
    "an exponent of a million digits": (b'{"inputs": 1e' + b"9" * 990_000 + b"}", 400, "not a number"),
    "the last of two fields counts": (b'{"inputs": "good", "inputs": ""}', 400, "inputs is empty"),
    "half a million numbers": (b'{"inputs": [1' + b",1" * 490_000 + b"]}", 422, "more values than a request"),
    "many fields": (
        ("{" + ",".join(f'"{n}":0' for n in range(90_000)) + "}").encode(),
        422,
        "more values than a request",
    ),
    "a list in a list": (b'{"inputs": [["good"]]}', 400, "not a list"),
    "a pair for a single-text model": (b'{"inputs": {"text": "a", "text_pair": "b"}}', 400, "leave out text_pair"),
}


def assert_still_answers(client: httpx.Client) -> None:
    response = client.post("/v1/predict", json={"inputs": "the good film", "variant": "dense"})
    assert response.status_code == 200, response.text


@pytest.fixture(scope="module", params=["through the framework", "whole"])
def either(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    write_bundle: Callable[..., Path],
    ways: dict[str, Callable[[FastAPI], AbstractContextManager[httpx.Client]]],
) -> Iterator[httpx.Client]:
    """A client on either way to the routes."""
    folder = tmp_path_factory.mktemp("either")
    for seed, variant in enumerate(("dense", "sparse")):
        write_bundle(folder, variant=variant, seed=seed)
    settings = Settings(models=folder, threads=1, max_body_bytes=1_000_000)
    with ways[request.param](create_app(settings)) as running:
        yield running


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/compare"])
def test_refused_requests(either: httpx.Client, case: str, path: str) -> None:
    body, status, words = REFUSED[case]
    if "variant" in case and path == "/v1/compare":
        body = body.replace(b'"variant": "nope"', b'"variants": ["dense", "nope"]')
    response = either.post(path, content=body)
    answer = response.json()
    assert response.status_code == status, answer
    assert words in answer["error"]
    assert answer["request_id"] == response.headers["x-request-id"]
    assert_still_answers(either)


def test_a_body_without_a_length_is_counted_while_it_comes(client: TestClient) -> None:
    response = client.post("/v1/predict", content=chunks())
    assert "content-length" not in response.request.headers
    assert response.status_code == 413
    assert_still_answers(client)


def chunks() -> Iterator[bytes]:
    yield from [b"x" * 100_000] * 100


POST_PATHS = [route.path for router in ROUTERS for route in router.routes if "POST" in route.methods]


@pytest.mark.parametrize("path", [path for path in POST_PATHS if not is_admin(path)])
def test_every_route_bounds_its_body(client: TestClient, path: str) -> None:
    filled = path.format(model="reviews", version="dense")
    compressed = client.post(filled, content=b"{}", headers={"Content-Encoding": "gzip"})
    assert (compressed.status_code, compressed.json()["error"]) == (
        400,
        "the body has a Content-Encoding; send it plain",
    )
    for body in (b"x" * 1_000_001, chunks()):
        large = client.post(filled, content=body)
        assert large.status_code == 413
        assert large.json()["error"].startswith("the body has more than 1000000 bytes")


@pytest.mark.parametrize(
    ("announced", "longer"), [("", False), ("x", False), ("100", False), ("101", True), ("²", False)]
)
def test_what_a_body_announces(announced: str, longer: bool) -> None:
    assert is_longer(announced, 100) == longer
    assert is_longer("9" * 5000, 100)


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert client.get("/nope").status_code == 404
    assert client.get("/nope").json()["error"] == "there is no path '/nope'; GET /docs lists them all"
    response = client.get("/v1/predict")
    assert response.status_code == 405
    assert response.json()["error"] == "/v1/predict does not answer GET; it answers POST"


@pytest.mark.parametrize(("path", "status"), [("/v1/predict/", 404), ("/v1//predict", 404), ("/v1/predict?x=1", 200)])
def test_paths_that_are_nearly_right(client: TestClient, path: str, status: int) -> None:
    response = client.post(path, json={"inputs": "good"}, follow_redirects=False)
    assert response.status_code == status
    assert_still_answers(client)


def leaves(error: type[ServiceError]) -> set[type[ServiceError]]:
    below = error.__subclasses__()
    return set().union(*(leaves(one) for one in below)) if below else {error}


def test_the_table_of_statuses_is_total() -> None:
    assert set(ERROR_STATUS) == leaves(ServiceError)
    assert all(name in (errors.__doc__ or "") for name in vars(errors) if name.endswith("Error"))


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "", "1e3", "٣", "00"])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/compare"])
def test_a_bad_timeout_is_one_sentence(client: TestClient, path: str, value: str) -> None:
    response = client.post(path, json={"inputs": "good"}, headers=[(b"X-Request-Timeout-Ms", value.encode())])
    assert response.status_code == 400
    assert response.json()["error"] == (
        f"the header X-Request-Timeout-Ms is {value.encode().decode('latin-1')!r}; "
        "send a whole number of milliseconds from 1 on"
    )
    assert_still_answers(client)
