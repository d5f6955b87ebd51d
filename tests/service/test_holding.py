"""What all bodies together may hold, and that large ones do not keep small ones out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.errors import QueueFullError
from service.holding import FREE_BYTES, HeldBodies, Room


def test_room_is_taken_whole_or_not_at_all() -> None:
    room = Room(10)
    room.take(7)
    with pytest.raises(QueueFullError, match="hold 7 bytes .limit 10, 64 times --max-body-bytes.; try again later"):
        room.take(4)
    room.take(3)
    room.give_back(7)
    assert room.held_bytes == 3


async def read(room: Room, chunks: list[int], *, fails: bool = False) -> int:
    """The most that was held while a body of such chunks was read."""
    coming = [{"type": "http.request", "body": bytes(size)} for size in chunks]
    most = 0

    async def app(scope, receive, send) -> None:
        nonlocal most
        for _ in chunks:
            await receive()
            most = max(most, room.held_bytes)
        if fails:
            raise RuntimeError

    async def receive() -> object:
        return coming.pop(0)

    await HeldBodies(app, room)({"type": "http"}, receive, None)
    return most


@given(chunks=st.lists(st.integers(0, FREE_BYTES * 2), max_size=5))
def test_what_comes_after_the_first_bytes_is_held_until_the_request_ends(chunks: list[int]) -> None:
    room = Room(2**40)
    assert asyncio.run(read(room, chunks)) == max(0, sum(chunks) - FREE_BYTES)
    assert room.held_bytes == 0


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_ends_a_request_gives_its_room_back(fails: bool) -> None:
    room = Room(100)
    with pytest.raises(RuntimeError if fails else QueueFullError):
        asyncio.run(read(room, [FREE_BYTES, 60, 0 if fails else 60], fails=fails))
    assert room.held_bytes == 0


LARGE = b"x" * 999_999


def post(app, rest: asyncio.Event | None, body: bytes) -> "asyncio.Task[int]":
    """The status of a request whose last byte comes with `rest`."""
    pieces = [(body, True), (b"}", False)] if rest else [(body, False)]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "server": ("here", 80), "client": ("there", 1),
    }  # fmt: skip
    statuses = []

    async def receive() -> object:
        if not pieces:
            await asyncio.Event().wait()
        piece, more = pieces.pop(0)
        if rest and not more:
            await rest.wait()
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: dict) -> None:
        statuses.append(message.get("status"))

    async def asked() -> int:
        await app(scope, receive, send)
        return statuses[0]

    return asyncio.get_running_loop().create_task(asked())


def test_many_large_bodies_at_once(client: TestClient) -> None:
    """64 MB hold 64 of them without their first bytes."""

    async def scenario() -> None:
        rest = asyncio.Event()
        large = [post(client.app, rest, LARGE) for _ in range(70)]
        assert await asyncio.gather(*large[64:]) == [429] * 6
        assert await post(client.app, None, b'{"inputs": "good"}') == 200
        rest.set()
        assert await asyncio.gather(*large[:64]) == [400] * 64
        assert await post(client.app, None, b'{"inputs": "good"' + b" " * 900_000 + b"}") == 200

    client.portal.call(scenario)
    assert 'sparsebert_rejections_total{reason="queue_full"} 6.0' in client.get("/metrics").text
