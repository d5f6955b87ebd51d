"""Every series that a request moves, for each type of request, and none besides; the series are those of the start."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from metric_moves import (
    COMPARE,
    INFER,
    LONG,
    PREDICT,
    Moody,
    Moved,
    Way,
    answered,
    compared,
    computed,
    ended,
    http,
    moved,
    read,
    rejected,
    running,
    scrape,
    series,
    truncated,
)
from service.workers import MAX_DEATHS
from watching import wait_until


@pytest.fixture(scope="module")
def four_bundles(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("four")
    for seed, variant in enumerate(("dense", "sparse", "third")):
        write_bundle(folder, variant=variant, seed=seed)
    write_bundle(folder, variant="odd", golden_off_by=1.0)
    return folder


@pytest.fixture(scope="module", params=["through the framework", "whole"])
def way(request: pytest.FixtureRequest, ways: dict[str, Way]) -> Way:
    return ways[request.param]


@pytest.fixture(scope="module")
def client(four_bundles: Path, way: Way) -> Iterator[httpx.Client]:
    with running(four_bundles, way) as (client, _):
        yield client


@pytest.fixture
def moody(four_bundles: Path, way: Way) -> Iterator[tuple[httpx.Client, Moody]]:
    """For what no other request may follow."""
    with running(four_bundles, way) as found:
        yield found


def of_predict(route: str) -> dict[str, tuple[dict, Moved]]:
    """What predict and the protocol's inference count alike: arguments of predict, and what moves."""
    return {
        "one text": ({"inputs": "good"}, http(route, 200) + answered(3)),
        "two texts": ({"inputs": ["good", "the bad film"]}, http(route, 200) + answered(3, 5)),
        "another variant": (
            {"inputs": "good", "variant": "sparse"},
            http(route, 200) + answered(3, variant="sparse"),
        ),
        "cut": (
            {"inputs": LONG, "truncate": True},
            http(route, 200) + read(22) + computed(16) + truncated() + ended("ok"),
        ),
        "too long": ({"inputs": LONG}, http(route, 422) + read(22) + ended("invalid")),
        "nothing for the tokenizer": ({"inputs": "\u200b"}, http(route, 400) + read(2) + ended("invalid")),
        "an empty text": ({"inputs": ""}, http(route, 400)),
        "an empty list": ({"inputs": []}, http(route, 400)),
        "too many": ({"inputs": ["good"] * 3}, http(route, 422)),
        "unknown variant": ({"inputs": "good", "variant": "nope"}, http(route, 404)),
        "a variant that did not load": (
            {"inputs": "good", "variant": "odd"},
            http(route, 503) + rejected("not_ready"),
        ),
        "too large": ({"inputs": "x" * 2000}, http(route, 413) + rejected("body_too_large")),
        "the model fails": ({"inputs": "awful film"}, http(route, 500) + read(4) + ended("error")),
    }


def tensors(inputs: str | list[str], **parameters: object) -> bytes:
    texts = [inputs] if isinstance(inputs, str) else inputs
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


@pytest.mark.parametrize("case", of_predict(PREDICT))
def test_predict(client: httpx.Client, case: str) -> None:
    body, expected = of_predict(PREDICT)[case]
    with moved(client) as found:
        client.post(PREDICT, json=body)
    assert found == expected


@pytest.mark.parametrize("case", of_predict(INFER))
def test_the_protocol(client: httpx.Client, case: str) -> None:
    arguments, expected = of_predict(INFER)[case]
    with moved(client) as found:
        client.post("/v2/models/reviews/infer", content=tensors(**arguments))
    assert found == expected


COMPARES = {
    "two variants": (
        {"inputs": ["good", "the film"], "variants": ["dense", "sparse"]},
        http(COMPARE, 200)
        + answered(3, 4)
        + answered(3, 4, variant="sparse")
        + compared("dense", "sparse", agree=1, disagree=1),
    ),
    "three, twice each": (
        {"inputs": "good", "repeats": 2},
        http(COMPARE, 200)
        + answered(3, times=2)
        + answered(3, variant="sparse", times=2)
        + answered(3, variant="third", times=2)
        + compared("dense", "sparse", disagree=1)
        + compared("dense", "third", agree=1),
    ),
    "another baseline": (
        {"inputs": "good", "variants": ["dense", "sparse"], "baseline": "sparse"},
        http(COMPARE, 200) + answered(3) + answered(3, variant="sparse") + compared("sparse", "dense", disagree=1),
    ),
    "one variant": ({"inputs": "good", "variants": ["dense"]}, http(COMPARE, 400)),
    "too long": ({"inputs": LONG}, http(COMPARE, 422) + read(22) + ended("invalid")),
    "one of them fails": ({"inputs": "awful"}, http(COMPARE, 500) + read(3) + ended("error")),
}


@pytest.mark.parametrize("case", COMPARES)
def test_compare(client: httpx.Client, case: str) -> None:
    body, expected = COMPARES[case]
    with moved(client) as found:
        client.post(COMPARE, json=body)
    assert found == expected


OTHERS = {
    "broken JSON": ("POST", PREDICT, b"{", http(PREDICT, 400)),
    "broken JSON of a compare": ("POST", COMPARE, b"{", http(COMPARE, 400)),
    "broken JSON of the protocol": ("POST", "/v2/models/reviews/infer", b"{", http(INFER, 400)),
    "a text and nothing else": (
        "POST", "/v2/models/reviews/versions/sparse/infer", b"good",
        http("/v2/models/{model}/versions/{version}/infer", 200) + answered(3, variant="sparse"),
    ),
    "no such path": ("GET", "/secret/path", b"", http("unmatched", 404, "GET")),
    "a slash too many": ("POST", PREDICT + "/", b"", http("unmatched", 404)),
    "no such method": ("GET", PREDICT, b"", http("unmatched", 405, "GET")),
    "an odd method": ("BREW", PREDICT, b"", http("unmatched", 405, "OTHER")),
    "alive": ("GET", "/healthz", b"", http("/healthz", 200, "GET")),
    "alive, the head": ("HEAD", "/healthz", b"", http("/healthz", 200, "HEAD")),
    "ready": ("GET", "/readyz", b"", http("/readyz", 503, "GET")),
    "metrics": ("GET", "/metrics", b"", http("/metrics", 200, "GET")),
    "docs": ("GET", "/docs", b"", http("/docs", 200, "GET")),
    "a file of the docs": ("GET", "/docs/swagger-ui.css", b"", http("/docs/{asset}", 200, "GET")),
    "models": ("GET", "/v1/models", b"", http("/v1/models", 200, "GET")),
    "a model": ("GET", "/v2/models/reviews", b"", http("/v2/models/{model}", 200, "GET")),
    "loading": (
        "POST", "/v2/repository/models/reviews/load", b"", http("/v2/repository/models/{model}/load", 403)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_other_requests(client: httpx.Client, case: str, request: pytest.FixtureRequest) -> None:
    if case == "an odd method" and "whole" in request.node.callspec.id:
        return  # the server itself refuses it
    method, path, body, expected = OTHERS[case]
    headers = {"Inference-Header-Content-Length": "0"} if body == b"good" else {}
    with moved(client) as found:
        client.request(method, path, content=body, headers=headers, follow_redirects=False)
    assert found == expected


def test_draining(moody: tuple[httpx.Client, Moody]) -> None:
    client, _ = moody
    client.app.state.serving.drain.begin(0.0)
    with moved(client) as found:
        client.post(PREDICT, json={"inputs": "good"})
    assert found == http(PREDICT, 503) + rejected("draining")
    with moved(client) as found:
        client.get("/readyz")
    assert found == http("/readyz", 503, "GET")


def test_dead_workers(moody: tuple[httpx.Client, Moody]) -> None:
    client, _ = moody
    with moved(client) as found:
        client.post(PREDICT, json={"inputs": "very"})
    assert found == http(PREDICT, 500) + read(3) + ended("error")
    for _ in range(MAX_DEATHS):
        client.post(PREDICT, json={"inputs": "very"})
    with moved(client) as found:
        client.post(PREDICT, json={"inputs": "good"})
    assert found == http(PREDICT, 503) + read(3) + ended("rejected") + rejected("not_ready")


@pytest.mark.parametrize("waits", [False, True], ids=["in the engine", "in the queue"])
def test_too_late_for_its_own_limit(moody: tuple[httpx.Client, Moody], waits: bool) -> None:
    client, dense = moody
    with ThreadPoolExecutor() as threads:
        if waits:
            held = threads.submit(client.post, PREDICT, json={"inputs": "plot"})
            assert dense.entered.wait(timeout=60)
        with moved(client) as found:
            client.post(PREDICT, json={"inputs": "plot"}, headers={"X-Request-Timeout-Ms": "50"})
        dense.opened.set()
        assert found == http(PREDICT, 504) + read(3) + ended("impatient") + rejected("deadline")
        if waits:
            assert held.result(timeout=60).status_code == 200


def test_a_full_queue_and_gauges(moody: tuple[httpx.Client, Moody]) -> None:
    client, dense = moody
    who = {"model": "reviews", "variant": "dense"}
    depth, tokens, inflight = series("queue_depth", **who), series("queue_tokens", **who), series(
        "inflight_requests", **who
    )  # fmt: skip
    start = scrape(client)
    with ThreadPoolExecutor() as threads:
        held = [threads.submit(client.post, PREDICT, json={"inputs": "plot"})]
        assert dense.entered.wait(timeout=60)
        held.append(threads.submit(client.post, PREDICT, json={"inputs": ["good", "the film"]}))
        wait_until(lambda: scrape(client)[depth] >= 2)
        with moved(client) as found:
            client.post(PREDICT, json={"inputs": "good"})
        now = scrape(client)
        dense.opened.set()
        assert [one.result(timeout=60).status_code for one in held] == [200, 200]
    assert found == http(PREDICT, 429) + read(3) + ended("rejected") + rejected("queue_full")
    assert (now[depth], now[tokens], now[inflight]) == (2, 7, 2)
    end = scrape(client)
    assert (end[depth], end[tokens], end[inflight]) == (start[depth], start[tokens], start[inflight]) == (0, 0, 0)


def test_a_client_that_leaves(four_bundles: Path, ways: dict[str, Way]) -> None:
    with running(four_bundles, ways["through the framework"]) as (client, dense):
        leave(client, dense)


def leave(client: httpx.Client, dense: Moody) -> None:
    messages = [{"type": "http.request", "body": b'{"inputs": "plot"}', "more_body": False}]
    scope = {
        "type": "http", "method": "POST", "path": PREDICT, "raw_path": PREDICT.encode(), "headers": [],
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 1), "app": client.app,
    }  # fmt: skip

    async def receive() -> dict:
        if messages:
            return messages.pop(0)
        await asyncio.get_running_loop().run_in_executor(None, dense.entered.wait)
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        del message

    with moved(client) as found:
        client.portal.call(client.app, scope, receive, send)
    assert found == http(PREDICT, 499) + read(3) + ended("cancelled")


def test_every_request_that_reached_a_variant_ends_once(moody: tuple[httpx.Client, Moody]) -> None:
    client, _ = moody
    start, moves = scrape(client), Counter()
    for path, cases in ((PREDICT, of_predict(PREDICT)), (COMPARE, COMPARES)):
        for body, expected in cases.values():
            client.post(path, json=body)
            moves += expected
    values = scrape(client)
    assert values.keys() == start.keys()
    began = {one: count for one, count in moves.items() if one[0] == "sparsebert_inference_requests_total"}
    assert {one: values[one] for one in began} == began
    assert sum(began.values()) == sum(count for one, count in values.items() if "inference_requests" in one[0]) == 19
    waiting = ("queue_depth", "queue_tokens", "inflight")
    assert all(count == 0 for one, count in values.items() if any(word in one[0] for word in waiting))
