"""Requests that come whole are answered by the connection itself, as the framework would; all others go its way."""

import asyncio
import gc
import json
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from service.app import create_app
from service.connections import BoundedProtocol
from service.direct import Route, Whole
from service.exchange import Reply
from service.opening import open_engine_with
from service.settings import Settings
from service.variants import load_catalog
from service.whole import REST_WITHIN_S, without_upgrade
from sparsebert.answers import PredictAnswer

Way = Callable[[FastAPI], AbstractContextManager[httpx.Client]]
HEAD = b"POST /direct HTTP/1.1\r\nHost: x\r\n"
FOUR = HEAD + b"Content-Length: 4\r\n\r\n"


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


class Direct:
    """Answers `/direct`, when it is let, with what was sent; remembers what it was asked."""

    max_body_bytes = 1000

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.fails = False
        self.let = asyncio.Event()
        self.let.set()

    def find(self, path: str) -> Route | None:
        return Route(template=path, handler=None) if path == "/direct" else None

    async def answer(self, route: Route, whole: Whole) -> None:
        self.asked.append(whole.body)
        if self.fails:
            raise RuntimeError("no answer")
        try:
            await self.let.wait()
            await whole.write(Reply(body=whole.body, headers=((b"x-route", route.template.encode()),)))
        except asyncio.CancelledError:
            self.asked.append(b"gone" if whole.gone else b"cut off")


class Wire(asyncio.Transport):
    """A double of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A connection and what is behind it; `through` is what came to the app."""

    def __init__(self) -> None:
        self.direct, self.wire, self.through, self.messages = Direct(), Wire(), [], []
        config = uvicorn.Config(self._app, log_config=None, ws="none", interface="asgi3")
        self.protocol = BoundedProtocol(config, ServerState(), {}, _loop=asyncio.get_running_loop(), direct=self.direct)
        self.protocol.connection_made(self.wire)

    async def _app(self, scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            self.messages += [message["type"]] if message["type"] != "http.request" else []
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.through.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"app"})

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)
        await self.done()

    async def done(self) -> None:
        while self.protocol.tasks:
            await asyncio.wait(set(self.protocol.tasks))


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-route: /direct\r\n\r\nbody"


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


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n"
UPGRADING = HEAD + H2C + b"Content-Length: 4\r\n\r\nbody"


@pytest.mark.parametrize("size", [1, 7, len(UPGRADING) - 4, len(UPGRADING) - 2, 10_000])
async def test_a_wish_for_another_protocol_is_passed_over(size: int) -> None:
    one = Connection()
    for request, body in ((UPGRADING, b"body"), (FOUR + b"more", b"more"), (UPGRADING, b"body")):
        await one.send(*(request[place : place + size] for place in range(0, len(request), size)))
        assert one.direct.asked.pop() == body
        assert one.wire.written.endswith(ANSWER.replace(b"body", body))
    assert (one.through, one.wire.closed) == ([], False)


async def test_such_a_wish_with_chunks_and_without_a_body_goes_through_the_app() -> None:
    one = Connection()
    await one.send(HEAD + H2C + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbo", b"dy\r\n0\r\n\r\n")
    await one.send(b"GET /other HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n")
    await one.send(HEAD.replace(b"1.1", b"1.0") + H2C + b"Content-Length: 4\r\n\r\nlast")
    assert (one.direct.asked, one.through) == ([], [b"body", b"", b"last"])


async def test_wishes_that_are_sent_together_are_answered_in_turn() -> None:
    one = Connection()
    one.protocol.data_received(UPGRADING * 3000)
    await one.done()
    while len(one.through) < 2999:
        await asyncio.sleep(0)
    assert one.direct.asked == [b"body"]
    assert one.through == [b"body"] * 2999
    assert not one.wire.closed


def test_a_head_without_its_wish() -> None:
    headers = [(b"connection", b"close, Upgrade"), (b"upgrade", b"h2c"), (b"x", b"1"), (b"connection", b"upgrade")]
    assert without_upgrade(b"POST", b"/a?b", b"1.1", headers) == (
        b"POST /a?b HTTP/1.1\r\nconnection: close\r\nx: 1\r\n\r\n"
    )


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
