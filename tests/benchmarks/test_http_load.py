import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from benchmarks.http_connections import LOST, OneConnection, post
from benchmarks.http_load import Answer, Load, closed_loop, open_loop, poisson_arrivals_s, run_precisely

ASKED = [post("/echo", body) for body in (b'{"n": 0}', b'{"n": 1}', b'{"n": 2}')]


@asynccontextmanager
async def server(answer):
    """Calls `answer(reader, writer, body)` for each request, in a connection of its own for each client."""

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                await answer(writer, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def echo(writer, body):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def hang_up(writer, body):
    writer.close()


async def never(writer, body):
    pass


def test_a_request_says_how_long_it_is():
    assert post("/p", b"{}").endswith(b"\r\nContent-Length: 2\r\n\r\n{}")
    assert post("/p", b"{}").startswith(b"POST /p HTTP/1.1\r\nHost: localhost\r\n")


def test_arrivals_are_in_order_within_the_time_and_the_same_for_a_seed():
    times_s = poisson_arrivals_s(100, 20, seed=3)
    assert times_s == sorted(times_s)
    assert times_s[0] >= 0
    assert times_s[-1] < 20
    assert times_s == poisson_arrivals_s(100, 20, seed=3)
    assert times_s != poisson_arrivals_s(100, 20, seed=4)


def test_arrivals_have_the_rate_and_the_spread_of_independent_clients():
    times_s = poisson_arrivals_s(50, 200, seed=0)
    gaps_s = [later - sooner for sooner, later in pairwise(times_s)]
    mean_s = sum(gaps_s) / len(gaps_s)
    assert mean_s == pytest.approx(1 / 50, rel=0.05)
    assert sum((gap - mean_s) ** 2 for gap in gaps_s) / len(gaps_s) == pytest.approx(mean_s**2, rel=0.1)


def test_only_good_answers_within_the_time_count():
    at = lambda at_s, status: Answer(index=0, at_s=at_s, latency_ms=1.0, status=status, body=b"")  # noqa: E731
    assert Load(answers=[at(0.5, 200), at(1.0, 200), at(1.5, 503), at(2.5, 200)], window_s=2.0).per_second == 1.0


def test_a_closed_loop_asks_for_everything_and_knows_whose_answer_it_is():
    async def run():
        async with server(echo) as port:
            return await closed_loop(port, ASKED, connections=2, seconds=0.2)

    load = run_precisely(run())
    assert {answer.index for answer in load.answers} == {0, 1, 2}
    assert all(answer.body == b'{"n": %d}' % answer.index for answer in load.answers)
    assert all(answer.status == 200 for answer in load.answers)


def test_a_closed_loop_tells_what_was_lost_and_connects_again():
    hung_up = []

    async def hang_up_once(writer, body):
        if hung_up:
            await echo(writer, body)
        else:
            hung_up.append(body)
            writer.close()

    async def run():
        async with server(hang_up_once) as port:
            return await closed_loop(port, ASKED, connections=1, seconds=0.5)

    statuses = [answer.status for answer in run_precisely(run()).answers]
    assert statuses[0] == LOST
    assert set(statuses[1:]) == {200}


def test_an_open_loop_asks_once_for_each_arrival_with_few_connections():
    async def run():
        async with server(echo) as port:
            return await open_loop(port, ASKED, [0.0] * 50 + [0.01], max_connections=2)

    load = run_precisely(run())
    assert [answer.status for answer in load.answers] == [200] * 51


def test_an_open_loop_counts_what_was_never_answered_and_what_found_no_connection():
    async def run():
        async with server(never) as port:
            return await open_loop(port, ASKED, [0.0, 0.0, 0.0], max_connections=1, grace_s=0.05)

    load = run_precisely(run())
    assert sorted(answer.body for answer in load.answers) == [b"no answer"] + [b"no connection was free"] * 2
    assert {answer.status for answer in load.answers} == {LOST}


def test_a_stalled_server_is_charged_for_all_that_came_meanwhile():
    """The second and third request wait at the client, and their latency counts from their own time."""
    released = asyncio.Event()

    async def stall(writer, body):
        asyncio.get_running_loop().call_later(0.2, released.set)
        await released.wait()
        await echo(writer, body)

    async def run():
        async with server(stall) as port:
            return await open_loop(port, ASKED, [0.0, 0.05, 0.1], max_connections=1)

    answers = run_precisely(run()).answers
    arrivals_s = (0.0, 0.05, 0.1)
    assert [one.latency_ms for one in answers] == pytest.approx(
        [(one.at_s - arrival_s) * 1000 for one, arrival_s in zip(answers, arrivals_s, strict=True)]
    )
    assert all(one.at_s >= 0.19 for one in answers)


def test_one_connection_blocks_for_each_answer():
    async def run():
        async with server(echo) as port:
            return await asyncio.to_thread(ask, port)

    def ask(port):
        connection = OneConnection(port)
        found = [connection.ask(request) for request in ASKED]
        connection.close()
        return found

    assert run_precisely(run()) == [(200, b'{"n": 0}'), (200, b'{"n": 1}'), (200, b'{"n": 2}')]


def test_one_connection_says_that_it_was_lost():
    async def run():
        async with server(hang_up) as port:
            await asyncio.to_thread(ask, port)

    def ask(port):
        connection = OneConnection(port)
        try:
            connection.ask(ASKED[0])
        finally:
            connection.close()

    with pytest.raises(ConnectionError):
        run_precisely(run())
