"""Clients that vanish, dribble or send garbage harm nobody, and the next good request is right."""

import json
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.service_process import started

BODY = json.dumps({"inputs": "the good film"}).encode()
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
GOOD = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(BODY), BODY)
ENDINGS = re.compile(r'^sparsebert_inference_requests_total\{.*outcome="(\w+)",variant="dense".*\} (\d+)', re.MULTILINE)


@contextmanager
def serving(models: Path) -> Iterator[int]:
    """The port of a service that runs in a process of its own and ends well."""
    with started(models) as service:
        yield service.port
        service.process.terminate()
        code, log = service.ending()
        assert (code, "Traceback" in log) == (0, False), log


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def exchange(port: int, sent: bytes) -> bytes:
    with connect(port) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(100_000), b""))


def right_answer(port: int) -> bytes:
    predictions = re.search(rb'"predictions":(\[.*?\])', exchange(port, GOOD))
    assert predictions is not None
    return predictions[1]


def scrape(port: int) -> str:
    return exchange(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()


def assert_nothing_in_flight(port: int) -> None:
    ends_s = time.monotonic() + 60
    while time.monotonic() < ends_s:
        text = scrape(port)
        if 'sparsebert_inflight_requests{model="reviews",variant="dense"} 0.0' in text:
            assert 'sparsebert_queue_depth{model="reviews",variant="dense"} 0.0' in text
            return
    pytest.fail("a request is in flight for ever")


def test_clients_that_vanish(models_folder: Path) -> None:
    with serving(models_folder) as port:
        expected = right_answer(port)
        cuts = random.Random(0)
        for _ in range(100):
            with connect(port) as client:
                client.sendall(GOOD[: cuts.randint(1, len(GOOD))])
        many = json.dumps({"inputs": ["the good film"] * 200}).encode()
        for _ in range(20):
            with connect(port) as client:
                client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(many), many))
        assert_nothing_in_flight(port)
        assert right_answer(port) == expected
        assert {outcome for outcome, count in ENDINGS.findall(scrape(port)) if int(count)} <= {"ok", "cancelled"}


def test_clients_that_dribble(models_folder: Path) -> None:
    with serving(models_folder) as port:
        expected = right_answer(port)
        slow = [connect(port) for _ in range(50)]
        for client in slow:
            client.sendall(HEAD + b"X-Request-Timeout-Ms: 500\r\nContent-Length: 1000\r\n\r\n{")
        assert right_answer(port) == expected
        for client in slow:
            answer = b"".join(iter(lambda one=client: one.recv(100_000), b""))
            assert answer.startswith(b"HTTP/1.1 504")
            assert b"the body did not arrive in time" in answer
            client.close()
        assert right_answer(port) == expected


GARBAGE = {
    "zeros": b"\0" * 1000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    "a bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "length and chunks": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "a header without end": HEAD + b"X-Long: " + b"x" * 200_000,
    "a header with NUL": HEAD + b"X-Odd: a\0b\r\n\r\n",
    "no version": b"POST /v1/predict\r\n\r\n",
    "an endless path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "random": random.Random(0).randbytes(5000),
}


def test_garbage(models_folder: Path) -> None:
    with serving(models_folder) as port:
        expected = right_answer(port)
        for name, sent in GARBAGE.items():
            with connect(port) as client:
                answer = b""
                with suppress(ConnectionError):  # who is refused in the middle of a head may be reset
                    client.sendall(sent)
                    client.shutdown(socket.SHUT_WR)
                    answer = b"".join(iter(lambda one=client: one.recv(100_000), b""))
                assert not answer or re.match(rb"HTTP/1.1 [45]\d\d", answer), name
                assert b" 500 " not in answer.partition(b"\r\n")[0], name
            assert right_answer(port) == expected
        assert_nothing_in_flight(port)
