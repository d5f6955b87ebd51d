"""Which requests does a connection answer itself, because they come whole, and what becomes of all others?"""

import asyncio
import gc
import weakref

import pytest

from service.whole import REST_WITHIN_S
from wired import ANSWER, FOUR, HEAD, Connection


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
