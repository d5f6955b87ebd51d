"""Whatever comes over the wire is answered or closed; then nothing is in flight and the next request is right."""

import json
import random
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

BODY = json.dumps({"inputs": "the good film"}).encode()
POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
GOOD = POST + LENGTH + b"\r\n" + BODY
LAST = POST + LENGTH + b"Connection: close\r\n\r\n" + BODY
CHUNKED = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
PREDICTIONS = re.compile(rb'"predictions":(\[.*?\]),')
RESET = struct.pack("ii", 1, 0)
RANDOM = random.Random(0)


@pytest.fixture
def port(service_url: str) -> Iterator[int]:
    """Of the service, whose next good request is right after the test, too, and nothing in flight."""
    port = int(service_url.rpartition(":")[2])
    expected = right_answer(port)
    yield port
    assert right_answer(port) == expected
    assert_at_rest(port)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        yield client


def everything(client: socket.socket) -> bytes:
    """What comes until the service closes; it may do so by a reset when it did not read all."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := client.recv(100_000):
            received += chunk
    return received


def exchange(port: int, sent: bytes) -> bytes:
    """What comes back until the service closes."""
    with connected(port) as client, suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(sent)
        return everything(client)
    return b""


def right_answer(port: int) -> bytes:
    with connected(port) as client:
        client.sendall(LAST)
        found = PREDICTIONS.search(everything(client))
    assert found is not None
    return found[1]


def assert_at_rest(port: int) -> None:
    for _ in range(1000):
        text = exchange(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()
        gauges = re.findall(
            r"^sparsebert_(?:inflight_requests|queue_depth|queue_tokens)\{.*\} (\S+)$", text, re.MULTILINE
        )
        assert len(gauges) == 9
        if set(gauges) == {"0.0"}:
            return
    pytest.fail("something is in flight for ever")


def statuses(received: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d\d\d) ", received)]


EXCHANGES: dict[str, tuple[bytes, list[int]]] = {
    "zeros": (b"\0" * 1000, [400]),
    "random bytes": (b"\x80" + RANDOM.randbytes(5000), [400]),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500, [400]),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "an SSH client": (b"SSH-2.0-OpenSSH_9.6\r\n", [400]),
    "no version": (b"POST /v1/predict\r\n\r\n", [400]),
    "HTTP/1.0": (GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), [200]),
    "HTTP/9.9": (LAST.replace(b"HTTP/1.1", b"HTTP/9.9"), [400]),
    "no host": (LAST.replace(b"Host: x\r\n", b""), [200]),
    "lines that end with LF": (LAST.replace(b"\r\n", b"\n"), [400]),
    "a space in a header's name": (POST + b"X Odd: a\r\n\r\n", [400]),
    "a NUL in a header": (POST + b"X-Odd: a\0b\r\n\r\n", [400]),
    "a folded header": (POST + b"X-Odd: a\r\n b\r\n\r\n", [400]),
    "a length below 0": (POST + b"Content-Length: -1\r\n\r\n", [400]),
    "a length in words": (POST + b"Content-Length: ten\r\n\r\n", [400]),
    "a length of 2**64": (POST + b"Content-Length: 18446744073709551616\r\n\r\n" + BODY, [400]),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", [400]),
    "length and chunks": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", [400]),
    "good chunks": (CHUNKED + b"".join(b"1\r\n%c\r\n" % one for one in BODY) + b"0\r\n\r\n", [200]),
    "chunks with extensions and a trailer": (
        CHUNKED + b"%x;a=b\r\n%s\r\n0\r\nX-T: 1\r\n\r\n" % (len(BODY), BODY), [200],
    ),
    "a chunk whose size is a word": (CHUNKED + b"zz\r\n", [400]),
    "a chunk whose size is negative": (CHUNKED + b"-1\r\n", [400]),
    "a chunk of 2**64": (CHUNKED + b"1ffffffffffffffff\r\n", [400]),
    "a chunk longer than it says": (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", [400]),
    "chunks of more than a body may have": (CHUNKED + (b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n") * 20, [413]),
    "another transfer encoding": (POST + b"Transfer-Encoding: gzip\r\n\r\n" + BODY, [400]),
    "three requests at once": (GOOD + GOOD + LAST, [200, 200, 200]),
    "a good one and garbage at once": (GOOD + b"\0\0\0\0\r\n\r\n", [400]),
    "a refused one, then a good one": (GOOD.replace(b"good", b"\0\0\0\0") + LAST, [400, 200]),
    "an upgrade to a web socket": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n", [200],
    ),
    "an upgrade to HTTP/2 with a body": (
        LAST.replace(b"Connection: close", b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c"), [200],
    ),
    "an upgrade, garbage, and two lengths": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}", [400],
    ),
    "a connection to elsewhere": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", [400]),
    "a whole address": (LAST.replace(b"/v1/predict", b"http://example.com/v1/predict"), [200]),
    "a method of its own": (b"BREW /v1/predict HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "an endless path": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [400]),
    "a path upwards": (b"GET /docs/../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
    "a path upwards, escaped": (b"GET /docs/%2e%2e%2fpage.py HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
    "8,000 headers": (POST + b"X-A: b\r\n" * 8_000 + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY, [200]),
    "10,000 headers": (POST + b"X-A: b\r\n" * 10_000 + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY, [400]),
}  # fmt: skip


@pytest.mark.parametrize("case", EXCHANGES)
def test_exchanges(port: int, case: str) -> None:
    sent, expected = EXCHANGES[case]
    assert statuses(exchange(port, sent)) == expected


@pytest.mark.parametrize("sent", [b"", b"G", POST, GOOD[:-1], POST + b"X-Long: " + b"x" * 60_000])
def test_clients_that_send_no_more(port: int, sent: bytes) -> None:
    with connected(port) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b""


def test_a_client_that_says_no_when_asked_to_go_on(port: int) -> None:
    with connected(port) as client:
        client.sendall(POST + LENGTH + b"Expect: 100-continue\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    with connected(port) as client:
        client.sendall(POST + LENGTH + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert statuses(everything(client)) == [200]


def test_what_is_too_large_is_not_read_to_its_end(port: int) -> None:
    with connected(port) as client:
        client.sendall(POST + b"Content-Length: 1000000000000\r\n\r\n" + b"x" * 1_000_001)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_clients_that_leave_at_every_byte(port: int, reset: bool) -> None:
    for place in [*range(1, len(GOOD), 3), len(GOOD)]:
        with connected(port) as client:
            client.sendall(GOOD[:place])
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_clients_that_leave_while_they_are_answered(port: int) -> None:
    body = json.dumps({"inputs": ["the good film"] * 200}).encode()
    for taken in (0, 1, 20, 1000):
        with connected(port) as client:
            client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            if taken:
                assert client.recv(taken).startswith(b"H")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_a_request_byte_by_byte_beside_others(port: int) -> None:
    with connected(port) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in LAST:
            slow.sendall(bytes([one]))
        assert right_answer(port)
        assert statuses(everything(slow)) == [200]


def test_a_client_that_does_not_read(port: int) -> None:
    """A hundred requests are sent, no answer is read until all were sent."""
    with connected(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(GOOD * 100)
        assert right_answer(port)
        client.sendall(LAST)
        assert statuses(everything(client)) == [200] * 101


def test_many_that_say_nothing(port: int) -> None:
    silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(200)]
    assert right_answer(port)
    for one in silent:
        one.close()
