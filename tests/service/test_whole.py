"""Requests that come whole are answered by the connection itself, as the framework would; all others go its way."""

import asyncio
import gc
import json
import socket
import threading
import weakref
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
from service.whole import REST_WITHIN_S
from sparsebert.answers import PredictAnswer
from wired import ANSWER, FOUR, HEAD, Connection

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


@pytest.mark.parametrize("pieces", [[FOUR + b"body"], [FOUR, b"body"], [HEAD, b"Content-Length: 4\r\n\r\nbo", b"dy"]])
async def test_a_whole_request_is_answered_in_one_write(pieces: list[bytes]) -> None:
    one = Connection()
    await one.send(*pieces)
    await one.send(FOUR + b"more")
    assert (one.direct.asked, one.through) == ([b"body", b"more"], [])
    assert one.wire.written == ANSWER + ANSWER.replace(b"body", b"more")
    assert not one.wire.closed


@pytest.mark.parametrize(
    "head",
    [
        b"POST /other HTTP/1.1\r\nContent-Length: 4\r\n",
        b"PUT /direct HTTP/1.1\r\nContent-Length: 4\r\n",
        b"POST /direct?x=y HTTP/1.1\r\nContent-Length: 4\r\n",
        b"POST /direct HTTP/1.0\r\nContent-Length: 4\r\n",
        HEAD + b"Content-Length: 4\r\nExpect: 100-continue\r\n",
        HEAD + b"Content-Length: 4\r\nContent-Encoding: gzip\r\n",
        HEAD + b"Content-Length: 4\r\nOrigin: https://elsewhere\r\n",
    ],
)
async def test_others_go_through_the_app(head: bytes) -> None:
    one = Connection()
    await one.send(head + b"\r\nbody")
    assert (one.direct.asked, one.through) == ([], [b"body"])
    assert one.wire.written.endswith(b"app")


async def test_a_body_without_length_or_with_too_many_bytes_goes_through_the_app() -> None:
    one = Connection()
    await one.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    await one.send(HEAD + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001)
    await one.send(HEAD + b"\r\n")
    await one.send(HEAD + b"Content-Length: 5000 \r\n\r\n" + b"x" * 5000)
    await one.send(HEAD + b"Content-Length: 5000\t\r\n\r\n" + b"x" * 5000)
    assert (one.direct.asked, one.through) == ([], [b"body", b"x" * 1001, b"", b"x" * 5000, b"x" * 5000])


async def test_a_body_of_which_the_rest_never_comes_is_told_to_the_app() -> None:
    one = Connection()
    one.protocol.data_received(FOUR + b"bo")
    one.protocol.connection_lost(None)
    await one.done()
    assert (one.direct.asked, one.through) == ([], [b""])
    assert one.messages == ["http.disconnect"]
    assert one.wire.written == b""


async def test_what_gets_no_answer_is_closed() -> None:
    one = Connection()
    one.direct.fails = True
    await one.send(FOUR + b"body")
    assert one.wire.closed
    assert one.wire.written == b""


async def test_a_connection_that_is_gone_keeps_nothing() -> None:
    one = Connection()
    await one.send(FOUR + b"body")
    one.protocol.connection_lost(None)
    left = weakref.ref(one.protocol)
    gc.disable()
    try:
        del one.protocol
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()


async def test_a_body_that_takes_its_time_goes_through_the_app() -> None:
    one, loop = Connection(), asyncio.get_running_loop()
    one.protocol.data_received(FOUR + b"bo")
    waited = asyncio.Event()
    loop.call_later(2 * REST_WITHIN_S, waited.set)
    await waited.wait()
    await one.send(b"dy")
    assert (one.direct.asked, one.through) == ([], [b"body"])


async def test_what_is_sent_too_soon_is_answered_in_its_turn() -> None:
    one = Connection()
    one.direct.let.clear()
    one.protocol.data_received(FOUR + b"body" + FOUR + b"next")
    asyncio.get_running_loop().call_soon(one.direct.let.set)
    await one.done()
    assert (one.direct.asked, one.through) == ([b"body"], [b"next"])
    assert one.wire.written.startswith(ANSWER + b"HTTP/1.1 200")
    assert one.wire.written.endswith(b"app")


async def test_a_connection_is_closed_when_the_client_wants_that() -> None:
    one = Connection()
    await one.send(HEAD + b"Content-Length: 4\r\nConnection: close\r\n\r\nbody")
    assert one.wire.closed
    assert b"\r\nconnection: close\r\n" in one.wire.written


@pytest.mark.parametrize("ended", ["gone", "cut off"])
async def test_what_works_on_an_answer_hears_that_nobody_waits(ended: str) -> None:
    one = Connection()
    one.direct.let.clear()
    one.protocol.data_received(FOUR + b"body")
    [task] = one.protocol.tasks
    await asyncio.sleep(0)
    if ended == "gone":
        one.protocol.connection_lost(None)
    else:
        task.cancel()
    await one.done()
    assert one.direct.asked == [b"body", ended.encode()]
    assert one.wire.written == b""


async def test_a_client_that_left_before_its_turn_is_not_written_to() -> None:
    one = Connection()
    one.protocol.data_received(FOUR + b"body")
    one.protocol.connection_lost(None)
    await one.done()
    assert one.wire.written == b""


async def test_a_server_that_stops_hands_over_what_came_so_far() -> None:
    one = Connection()
    one.protocol.data_received(FOUR + b"bo")
    one.protocol.shutdown()
    await one.send(b"dy")
    assert (one.direct.asked, one.through) == ([], [b"body"])
    assert b"\r\nconnection: close\r\n" in one.wire.written


def test_the_json_of_an_answer_is_what_the_docs_say(both: tuple[httpx.Client, httpx.Client]) -> None:
    answer = both[1].post("/v1/predict", json={"inputs": ["good", "bad"]})
    assert PredictAnswer.model_validate(answer.json()).model_dump(mode="json") == answer.json()
    assert json.loads(answer.content) == answer.json()
