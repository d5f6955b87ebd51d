"""The client: what it sends, what it makes of answers, and when it asks again; on httpx's own double of a server."""

import json
import subprocess
import sys
import types
from collections.abc import Iterator

import httpx
import pytest
from httpx_retries import retry as retry_module

from client_double import BOTH, LOADED, UNLOADED, URL, Answers, call, ok, predict, refused
from sparsebert.client import Client, ClientError, Pair, RefusedError, UnexpectedAnswerError, UnreachableError
from sparsebert.errors import SparseBertError


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that the client would have waited, blocking or async."""
    waited: list[float] = []

    async def asleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(retry_module, "time", types.SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(retry_module, "asyncio", types.SimpleNamespace(sleep=asleep))
    return waited


@BOTH
def test_what_is_sent_and_what_comes_back(form: type) -> None:
    server = Answers(ok())
    answer = predict(server, form, "a film", api_key="secret")
    assert (answer.variant, answer.predictions[0].label, answer.timings_ms.infer) == ("dense", "good", 1.5)
    [request] = server.requests
    assert (request.method, str(request.url)) == ("POST", "http://service/v1/predict")
    assert json.loads(request.content) == {"inputs": "a film", "truncate": False}
    assert request.headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        (Pair("a", "b"), {"text": "a", "text_pair": "b"}),
        ([Pair("a", "b"), "c"], [{"text": "a", "text_pair": "b"}, "c"]),
        ({"text": "a"}, {"text": "a"}),
        ([{"text": "a"}, "c"], [{"text": "a"}, "c"]),
        ((text for text in ("a", "b")), ["a", "b"]),
    ],
)
def test_forms_of_inputs(inputs: object, sent: object) -> None:
    server = Answers(ok())
    predict(server, Client, inputs, model="demo", variant="sparse", top_k=1, truncate=True)
    assert json.loads(server.requests[0].content) == {
        "inputs": sent, "truncate": True, "model": "demo", "variant": "sparse", "top_k": 1,
    }  # fmt: skip
    assert "authorization" not in server.requests[0].headers


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 500, 504])
def test_a_refusal_is_not_tried_again(form: type, status: int, waits: list[float]) -> None:
    server = Answers(refused(status))
    with pytest.raises(RefusedError) as caught:
        predict(server, form, "a")
    error = caught.value
    assert (error.status, error.sentence, error.request_id) == (status, "a sentence with the cure", "abc")
    assert str(error) == f"a sentence with the cure (status {status}, request abc)"
    assert isinstance(error, SparseBertError)
    assert (len(server.requests), waits) == (1, [])


@BOTH
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(form: type, status: int, waits: list[float]) -> None:
    server = Answers(refused(status, retry_after="3"), refused(status, retry_after="1"), ok())
    assert predict(server, form, "a").variant == "dense"
    assert waits == [3.0, 1.0]
    assert len({request.content for request in server.requests}) == 1


@BOTH
@pytest.mark.parametrize("method", ["models", "unload"])
def test_who_must_wait_for_long_hears_of_it_at_once(form: type, method: str, waits: list[float]) -> None:
    server = Answers(refused(429, retry_after="2"), refused(429, retry_after="45"))
    with pytest.raises(RefusedError) as caught:
        call(server, form, method, *(() if method == "models" else ("demo", "sparse")))
    assert str(caught.value) == "a sentence with the cure (status 429, request abc, ask again in 45 s)"
    assert (caught.value.retry_after_s, len(server.requests), waits) == (45.0, 2, [2.0])


@BOTH
def test_a_retry_after_that_says_nothing_is_passed_over(form: type, waits: list[float]) -> None:
    server = Answers(refused(503, retry_after="soon"), ok())
    assert predict(server, form, "a").variant == "dense"
    assert len(waits) == 1


@BOTH
def test_retries_end(form: type, waits: list[float]) -> None:
    server = Answers(*[refused(503, retry_after="1")] * 3)
    with pytest.raises(RefusedError, match="a sentence with the cure") as caught:
        predict(server, form, "a", retries=2)
    assert (caught.value.status, waits) == (503, [1.0, 1.0])


@BOTH
def test_a_broken_connection_is_tried_again_and_a_late_answer_is_not(form: type, waits: list[float]) -> None:
    server = Answers(httpx.ConnectError("refused"), httpx.ReadError("reset"), ok())
    assert predict(server, form, "a").variant == "dense"
    assert len(waits) == 2
    late = Answers(httpx.ReadTimeout("late"))
    with pytest.raises(UnreachableError, match="http://service did not answer in time"):
        predict(late, form, "a")
    gone = Answers(httpx.ConnectError("nobody listens"))
    with pytest.raises(UnreachableError, match=r"http://service cannot be reached \(nobody listens\)"):
        predict(gone, form, "a", retries=0)


@BOTH
def test_what_cannot_be_sent_or_read_is_an_error_of_the_client_too(form: type, waits: list[float]) -> None:
    garbled = Answers(httpx.DecodingError("incorrect header check"))
    with pytest.raises(UnexpectedAnswerError, match="cannot be decoded"):
        predict(garbled, form, "a")
    with pytest.raises(ClientError, match="a lone surrogate"):
        predict(Answers(), form, "half \ud83d")


def test_answers_of_others(waits: list[float]) -> None:
    with pytest.raises(UnexpectedAnswerError, match="not one of this service"):
        predict(Answers(httpx.Response(200, text="<html>")), Client, "a")
    bare = httpx.Response(404, text="<html>", headers={"x-request-id": "from-header"})
    with pytest.raises(RefusedError, match="refused without a reason") as caught:
        predict(Answers(bare), Client, "a")
    assert caught.value.request_id == "from-header"


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_ready_asks_once(status: int, ready: bool, waits: list[float]) -> None:
    server = Answers(ok({}) if ready else refused(503, retry_after="1"), refused(404))
    with Client(URL, transport=server.transport) as client:
        assert client.ready() is ready
        assert (len(server.requests), waits) == (1, [])
        with pytest.raises(RefusedError):
            client.ready()


@BOTH
def test_the_folder_is_listed_loaded_and_unloaded(form: type) -> None:
    variant = {
        "model": "demo", "variant": "sparse", "default": True, "state": "unloaded", "error": None, "version": None,
        "found": True, "loading": False,
    }  # fmt: skip
    server = Answers(ok({"variants": [variant]}), ok(LOADED), ok(UNLOADED))
    [listed] = call(server, form, "folder", api_key="secret")
    assert (listed.variant, listed.state, listed.found) == ("sparse", "unloaded", True)
    assert call(server, form, "load", "demo", "sparse", api_key="secret").version == "0123456789ab"
    assert call(server, form, "unload", "demo", "sparse", api_key="secret").gone
    assert [(one.method, one.url.path, one.headers["authorization"]) for one in server.requests] == [
        ("GET", "/v1/admin/models", "Bearer secret"),
        ("POST", "/v1/admin/models/demo/variants/sparse/load", "Bearer secret"),
        ("POST", "/v1/admin/models/demo/variants/sparse/unload", "Bearer secret"),
    ]


def test_a_name_stays_one_part_of_the_path() -> None:
    server = Answers(refused(404), refused(404))
    for names in (("..", "a/b"), ("a?b#c", "%2e")):
        with pytest.raises(RefusedError):
            call(server, Client, "load", *names)
    assert [one.url.raw_path for one in server.requests] == [
        b"/v1/admin/models/%2E%2E/variants/a%2Fb/load",
        b"/v1/admin/models/a%3Fb%23c/variants/%252e/load",
    ]


@BOTH
@pytest.mark.parametrize("method", ["load", "unload"])
def test_a_change_is_sent_again_only_when_it_cannot_have_been_made(form: type, method: str, waits: list[float]) -> None:
    answer = ok({"load": LOADED, "unload": UNLOADED}[method])
    begun = Answers(
        refused(429, retry_after="2"), refused(503, retry_after="1"), httpx.ConnectError("nobody listens"), answer
    )
    assert call(begun, form, method, "demo", "sparse").variant == "sparse"
    assert waits[:2] == [2.0, 1.0]
    for status in (409, 502, 504):
        server = Answers(refused(status, retry_after="1"))
        with pytest.raises(RefusedError):
            call(server, form, method, "demo", "sparse")
    for error in (httpx.ReadError("reset"), httpx.RemoteProtocolError("gone"), httpx.ReadTimeout("late")):
        with pytest.raises(UnreachableError):
            call(Answers(error), form, method, "demo", "sparse")
    assert len(waits) == 3


def test_without_its_extra_it_names_the_cure() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "from sparsebert.errors import MissingExtraError\n"
        "try:\n    import sparsebert.client\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "sparsebert.client needs: pip install 'sparsebert[client]' (the package 'httpx' is missing)\n"
    )
