"""What do clients see when Ray ends a request? Needs no Ray."""

import pytest
from starlette.testclient import TestClient

from asgi_messages import begin, body
from service.cluster.proxy import Retriable, middlewares


def proxied(*messages: dict) -> tuple[int, dict, dict]:
    """Status, headers and document of a request that Ray answers so."""

    async def ray(scope, receive, send):
        for message in messages:
            await send(message)

    [around] = middlewares()
    assert around.cls is Retriable
    answered = TestClient(Retriable(ray)).get("/v1/models", headers={"x-request-id": "seven"})
    return answered.status_code, dict(answered.headers), answered.json()


@pytest.mark.parametrize(
    ("messages", "status", "sentence", "again"),
    [
        ([], 503, "the replica that had the request is gone; send it again", "1"),
        (
            [begin(408), body(b"Request timed out")], 504,
            "no replica answered in time; send fewer texts at a time, or have --request-timeout-s raised", None,
        ),
        ([begin(429), body(b"x")], 429, "all replicas have as much to do as they take; try again later", "1"),
        ([begin(503), body(b"x"), body(b"y")], 503, "no replica is there; try again later", "1"),
    ],
)  # fmt: skip
def test_what_ray_ends_is_told_as_the_service_does(messages, status, sentence, again):
    seen, headers, document = proxied(*messages)
    assert (seen, document) == (status, {"error": sentence, "request_id": "seven"})
    assert headers.get("retry-after") == again
    assert (headers["x-request-id"], headers["x-content-type-options"]) == ("seven", "nosniff")


def test_what_a_replica_answers_stays_as_it_is():
    ours = begin(503, (b"x-content-type-options", b"nosniff"), (b"content-type", b"application/json"))
    assert proxied(ours, body(b'{"error": "the service is stopping"}'))[::2] == (
        503,
        {"error": "the service is stopping"},
    )


def test_an_odd_request_id_does_not_reach_ray():
    async def ray(scope, receive, send):
        seen.extend(value for name, value in scope["headers"] if name == b"x-request-id")

    seen: list[bytes] = []
    answered = TestClient(Retriable(ray)).get("/", headers={"x-request-id": "no word"})
    assert [answered.headers["x-request-id"].encode()] == seen
    assert seen != [b"no word"]


def test_paths_of_ray_itself_stay_as_they_are():
    async def ray(scope, receive, send):
        await send(begin(503))
        await send(body(b"draining"))

    assert TestClient(Retriable(ray)).get("/-/healthz").text == "draining"
