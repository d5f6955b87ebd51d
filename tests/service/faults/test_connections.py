"""Heads without end, heads that dribble, bodies that are too large, and answers that nobody reads harm nobody."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvicorn
from uvicorn.server import ServerState

from benchmarks.service_process import started
from service.connections import BoundedProtocol, cut_off_late

BODY = json.dumps({"inputs": "the good film"}).encode()
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
GOOD = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(BODY), BODY)
LIMIT_S = 30.0


class Wire(asyncio.Transport):
    """A double of a transport: keeps what is written, and how it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.unread, self.ended, self.closed, self.aborted = b"", 0, False, False, False

    def write(self, data: bytes) -> None:
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        assert not self.ended
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Task:
    """A double of a task."""

    def add_done_callback(self, callback: object) -> None:
        pass


class Loop:
    """A double of an event loop whose time stands still until it is set; tasks are never run."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.later.append((delay_s, callback))

    def create_task(self, work: object) -> "Task":
        work.close()
        return Task()


class Nothing:
    """Answers nothing directly."""

    def find(self, path: str) -> None:
        del path


def connected() -> tuple[BoundedProtocol, Wire, Loop]:
    async def app(scope: object, receive: object, send: object) -> None: ...

    config, loop, wire = uvicorn.Config(app, log_config=None, ws="none"), Loop(), Wire()
    protocol = BoundedProtocol(config, ServerState(), {}, _loop=loop, direct=Nothing())
    protocol.connection_made(wire)
    return protocol, wire, loop


def is_told_and_closed_after_a_second(wire: Wire, loop: Loop) -> bool:
    """Whether it can still read why, and not for long."""
    assert (wire.ended, wire.closed, wire.aborted) == (True, False, False)
    [(delay_s, close)] = loop.later
    close()
    return delay_s == 1.0 and wire.closed


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nX-Long: ",
        b"GET /",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
        HEAD + b"X: y\r\nContent-Length: 9\r\nX",
    ],
)
def test_a_head_without_end_is_refused(begin: bytes) -> None:
    protocol, wire, loop = connected()
    protocol.data_received(begin)
    more = b"\r\n" * 500 if begin.isspace() else b"a" * 1000
    if begin.endswith(b"1.1\r\n"):
        more = b"A: b\r\n" * 160
    for _ in range(80):
        protocol.data_received(more)
    assert wire.written == (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 50\r\n"
        b"connection: close\r\n\r\nThe head of the request has more than 65536 bytes."
    )
    assert is_told_and_closed_after_a_second(wire, loop)


LINE = b"X-Odd: " + b"a" * 91 + b"\r\n"  # of 100 bytes


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["first", "second"])
@pytest.mark.parametrize("num_bytes", [66_000, 80_000, 131_000])
def test_a_large_head_that_comes_at_once_is_not_answered(before: bytes, num_bytes: int) -> None:
    protocol, wire, loop = connected()
    protocol.data_received(before + HEAD + LINE * (num_bytes // 100) + b"Content-Length: 2\r\n\r\n{}")
    if before:
        assert (wire.aborted, wire.written) == (True, b"")
    else:
        assert wire.written.endswith(b"\r\n\r\nThe head of the request has more than 65536 bytes.")
        assert protocol.cycle is None
        assert is_told_and_closed_after_a_second(wire, loop)


def test_a_large_head_that_is_refused_while_more_is_read_is_refused_once() -> None:
    protocol, wire, loop = connected()
    # Read again without the wish for another protocol each word has a line of its own.
    protocol.data_received(HEAD + b"Connection: Upgrade" + b",a" * 20_000 + b"\r\nUpgrade: h2c\r\n\r\n" + GOOD * 500)
    assert wire.written.count(b"HTTP/1.1 400 ") == 1
    assert is_told_and_closed_after_a_second(wire, loop)


def test_what_comes_after_a_refusal_is_thrown_away_and_no_reason_to_wait_longer() -> None:
    protocol, wire, loop = connected()
    protocol.data_received(b"GET /?" + b"a" * 66_000)
    told = wire.written
    protocol.data_received(b" HTTP/1.1\r\nHost: x\r\n\r\n" + GOOD)
    assert (wire.written, protocol.cycle) == (told, None)
    wire.unread = 1
    for now_s in (loop.now_s, loop.now_s + LIMIT_S + 1):
        cut_off_late([protocol], now_s, LIMIT_S)
    assert wire.aborted


def test_a_long_url_is_a_large_head() -> None:
    protocol, wire, _ = connected()
    protocol.data_received(b"GET /?" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.written.endswith(b"The head of the request has more than 65536 bytes.")


def test_large_reads_of_small_heads_are_answered() -> None:
    protocol, wire, _ = connected()
    protocol.data_received((HEAD + LINE * 600 + b"Content-Length: 2\r\n\r\n{}") * 4)
    assert not wire.is_closing()
    assert len(protocol.pipeline) == 3


@pytest.mark.parametrize("more", [b"X: y\r\n" * 160, b"X: " + b"y" * 1000, b"5;" + b"e" * 1000])
def test_trailers_and_extensions_of_chunks_without_end_are_cut_off(more: bytes) -> None:
    protocol, wire, _ = connected()
    protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    protocol.data_received(b"0\r\n" if more.startswith(b"X") else b"5;e=")
    for _ in range(80):
        if not wire.is_closing():
            protocol.data_received(more if more.endswith(b"\r\n") else b"y" * 1000)
    assert wire.aborted
    assert wire.written == b""


def test_a_large_body_is_no_large_head() -> None:
    protocol, wire, _ = connected()
    protocol.data_received(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(1000):
        protocol.data_received(b"x" * 1000)
    assert not wire.is_closing()
    assert len(protocol.cycle.body) == 1_000_000


def test_what_is_late_is_cut_off_and_nothing_else() -> None:
    protocol, wire, loop = connected()

    def late_after(seconds: float) -> bool:
        loop.now_s += seconds
        cut_off_late([protocol, object()], loop.now_s, LIMIT_S)
        return wire.aborted

    assert not late_after(LIMIT_S)
    protocol.data_received(HEAD + b"Content-Length: 2\r\n\r\n{")
    assert not late_after(LIMIT_S)
    protocol.data_received(b"}")
    assert not late_after(1000)
    protocol.data_received(b"GET / HT")
    assert not late_after(LIMIT_S)
    protocol.data_received(b"T")
    assert late_after(0.1)


def test_a_body_that_dribbles_is_late_too() -> None:
    protocol, wire, loop = connected()
    protocol.data_received(HEAD + b"Content-Length: 2000\r\n\r\n")
    for _ in range(4):
        loop.now_s += 10
        protocol.data_received(b"x")
    cut_off_late([protocol], loop.now_s, LIMIT_S)
    assert wire.aborted


def test_a_client_that_may_not_send_is_not_late() -> None:
    protocol, wire, loop = connected()
    protocol.data_received(HEAD + b"Content-Length: 2000000\r\n\r\n" + b"x" * 1_000_000)
    assert protocol.flow.read_paused
    cut_off_late([protocol], loop.now_s + 1000, LIMIT_S)
    assert not wire.aborted


def test_an_answer_that_is_not_read_is_late() -> None:
    protocol, wire, loop = connected()
    protocol.data_received(GOOD)
    wire.unread = 1
    cut_off_late([protocol], loop.now_s, LIMIT_S)
    cut_off_late([protocol], loop.now_s + LIMIT_S, LIMIT_S)
    assert not wire.aborted
    wire.unread = 0
    cut_off_late([protocol], loop.now_s + 100, LIMIT_S)
    wire.unread = 1
    cut_off_late([protocol], loop.now_s + 101, LIMIT_S)
    assert not wire.aborted
    cut_off_late([protocol], loop.now_s + 132, LIMIT_S)
    assert wire.aborted


@pytest.fixture
def impatient(models_folder: Path) -> Iterator[int]:
    """The port of a service that waits for half a second."""
    with started(models_folder, "--threads", "1", "--request-timeout-s", "0.5") as service:
        yield service.port
        service.process.terminate()
        code, log = service.ending()
        assert (code, "Traceback" in log) == (0, False), log


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while chunk := client.recv(100_000):
        answer += chunk
    return answer


def test_the_process_bounds_what_clients_send(impatient: int) -> None:
    slow = {name: connect(impatient) for name in ("nothing", "head", "body")}
    slow["head"].sendall(HEAD)
    slow["body"].sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    with connect(impatient) as large:
        large.sendall(HEAD + b"Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        assert large.recv(100_000).startswith(b"HTTP/1.1 413")
    # It may take longer than it is listened to.
    with connect(impatient) as endless, suppress(BrokenPipeError, ConnectionResetError):
        endless.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 10_000_000)
        read_all(endless)
    for _ in range(10):
        with connect(impatient) as long:
            long.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 400_000 + b"\r\n\r\n")
            answer = read_all(long)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert answer.endswith(b"\r\n\r\nThe head of the request has more than 65536 bytes.")
    answers = {name: read_all(client) for name, client in slow.items()}
    assert (answers["nothing"], answers["head"]) == (b"", b"")
    assert answers["body"].startswith(b"HTTP/1.1 504")
    for client in slow.values():
        client.close()
    with connect(impatient) as client:
        client.sendall(GOOD)
        assert read_all(client).startswith(b"HTTP/1.1 200")
