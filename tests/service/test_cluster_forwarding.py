"""Who is a request for, and who answers it? Needs no Ray."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from asgi_messages import begin, body
from service.catalog import Catalog, FailedBundle
from service.cluster.calling import Answered, Asked
from service.cluster.forwarding import Forwarding, choose
from service.errors import NotReadyError, QueueFullError
from service.keys import KeyRing, Scope, make_key
from service.routing import VariantName

DENSE, SPARSE = VariantName(model="demo", variant="dense"), VariantName(model="demo", variant="sparse")
CATALOG = Catalog(
    loaded=(), failed=(FailedBundle(name=DENSE, error=""), FailedBundle(name=SPARSE, error="")), defaults=(DENSE,)
)


def scope_of(path: str, *headers: tuple[bytes, bytes], method: str = "POST") -> dict:
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


@pytest.mark.parametrize(
    ("path", "sent", "name"),
    [
        ("/v1/predict", {"inputs": "x"}, DENSE),
        ("/v1/predict", {"inputs": "x", "variant": "sparse"}, SPARSE),
        ("/v1/predict", {"inputs": "x", "model": "demo", "variant": "sparse"}, SPARSE),
        ("/v1/predict", {"inputs": "x", "variant": "sparce"}, None),
        ("/v1/predict", {"inputs": "x", "variant": 7}, None),
        ("/v1/predict", ["x"], None),
        ("/v2/models/demo/infer", {"inputs": []}, DENSE),
        ("/v2/models/demo.sparse/infer", {"inputs": []}, SPARSE),
        ("/v2/models/demo/versions/sparse/infer", {}, SPARSE),
        ("/v2/models/demo/infer", {"parameters": {"variant": "sparse"}}, SPARSE),
        ("/v2/models/demo.dense/infer", {"parameters": {"variant": "sparse"}}, None),
        ("/v2/models/other/infer", {}, None),
    ],
)
def test_the_variant_of_a_request(path, sent, name):
    assert choose(scope_of(path), json.dumps(sent).encode(), CATALOG) == name


def test_a_variant_of_a_request_in_binary():
    length = (b"inference-header-content-length", b"0")
    assert choose(scope_of("/v2/models/demo.sparse/infer", length), b"\xff\x00", CATALOG) == SPARSE
    assert choose(scope_of("/v2/models/demo.sparse/infer", (length[0], b"9")), b"\xff\x00", CATALOG) is None


@given(st.binary())
def test_no_body_makes_choosing_fail(sent):
    assert choose(scope_of("/v1/predict"), sent, CATALOG) in (None, DENSE, SPARSE)
    assert choose(scope_of("/v2/models/demo/infer"), sent, CATALOG) in (None, DENSE, SPARSE)


def forwarded(sent: bytes, *, error: Exception | None = None, ring: KeyRing | None = None, max_bytes: int = 100) -> str:
    """Who answered a request to predict, or how it was refused."""

    async def here(scope, receive, send):
        message = await receive()
        await send(begin(200))
        await send(body(b"here " + message["body"]))

    async def there(asked: Asked) -> Answered:
        if error is not None:
            raise error
        return Answered(status=200, headers=[], body=b"there " + asked.body)

    app = Forwarding(
        here,
        asks={"demo/sparse": there},
        catalog=lambda: CATALOG,
        ring=ring or KeyRing(),
        max_bytes=max_bytes,
        patience_s=60,
    )
    answered = TestClient(app).post("/v1/predict", content=sent)
    return f"{answered.status_code} {answered.headers.get('retry-after')} {answered.text.split(', ')[0]}"


def test_a_request_is_handed_on_to_the_replicas_of_its_variant():
    assert forwarded(b'{"variant":"sparse"}') == '200 None there {"variant":"sparse"}'


@pytest.mark.parametrize("sent", [b'{"variant":"dense"}', b'{"variant":"x"}', b"no json", b""])
def test_what_has_no_replicas_of_its_own_is_answered_here(sent):
    assert forwarded(sent) == f"200 None here {sent.decode()}"


def test_what_is_too_large_or_has_no_key_is_refused_here():
    sent = b'{"variant":"sparse"}'
    assert forwarded(sent, max_bytes=10) == '200 None here {"variant":"sparse"}'
    _, key = make_key("shop", Scope.ADMIN, None, lambda size: "k" * size)
    assert forwarded(sent, ring=KeyRing(keys=(key,))) == '200 None here {"variant":"sparse"}'


def test_replicas_that_are_gone_or_busy_are_told():
    sent = b'{"variant":"sparse"}'
    assert forwarded(sent, error=NotReadyError("gone")) == '503 1 {"error": "gone"'
    assert forwarded(sent, error=QueueFullError("busy")) == '429 1 {"error": "busy"'
