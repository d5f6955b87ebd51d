"""A wish for another protocol is passed over, and its request answered as if it had none."""

import asyncio

import pytest

from service.whole import without_upgrade
from wired import ANSWER, FOUR, HEAD, Connection

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
