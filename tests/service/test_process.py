"""The real process: it starts, answers, drains on SIGTERM and says in one line why it cannot start."""

import errno
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks.service_process import Served, started
from service.cli import bind, unusable
from service.workers import MAX_DEATHS
from sparsebert.errors import ConfigError
from watching import wait_until

BODY = json.dumps({"inputs": "the good film"}).encode()
COMMAND = [sys.executable, "-m", "sparsebert", "serve"]
FLAGS = ("--threads", "1")


def ends_well(service: Served) -> bool:
    """Whether it ends with 0 and has no traceback to tell of."""
    code, log = service.ending()
    return code == 0 and "Traceback" not in log


def test_sigterm_while_it_loads_ends_it_and_sighup_with_keys_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "reviews" / "dense"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "manifest.json")
    keys = tmp_path / "keys"
    subprocess.run([*COMMAND[:-1], "key", "--api-keys", str(keys), "--name", "shop"], check=True, capture_output=True)
    flags = ["--models", str(tmp_path / "models"), "--port", "0", "--api-keys", str(keys)]
    with subprocess.Popen([*COMMAND, *flags]) as process:
        try:
            with (folder / "manifest.json").open("w"):  # open when the service is, to read it
                process.send_signal(signal.SIGHUP)
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_answered_after_the_signal(models_folder: Path, sign: signal.Signals) -> None:
    with started(models_folder, *FLAGS) as service:
        assert ask(service.port, "POST", "/v1/predict", BODY)[0] == 200
        assert ask(service.port, "POST", "/v1/predict", b"x" * 10_000_000)[0] == 413
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as slow:
            # The server says 100 when the route begins to read the body: the request is in flight then.
            head = (
                f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n"
            )
            slow.sendall(head.encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 100")
            service.process.send_signal(sign)
            wait_until(lambda: ask(service.port, "GET", "/readyz")[0] != 200)
            assert ask(service.port, "POST", "/v1/predict", BODY)[0] == 503
            slow.sendall(BODY)
            answer = b""
            while chunk := slow.recv(10_000):
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 200")
            assert b'"predictions"' in answer
        assert ends_well(service)


def test_a_drain_does_not_wait_for_ever(models_folder: Path) -> None:
    with (
        started(models_folder, *FLAGS, "--drain-timeout-s", "0") as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as slow,
    ):
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")
        service.process.send_signal(signal.SIGTERM)
        answer = b""
        while chunk := slow.recv(10_000):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'{"error":"the service is stopping; ' in answer
        assert ends_well(service)


def test_a_second_signal_does_not_wait(models_folder: Path) -> None:
    with (
        started(models_folder, *FLAGS, "--drain-timeout-s", "600") as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as slow,
    ):
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(service.port, "GET", "/readyz")[0] != 200)
        service.process.send_signal(signal.SIGTERM)
        assert b"".join(iter(lambda: slow.recv(10_000), b"")).startswith(b"HTTP/1.1 503")
        assert ends_well(service)


# Loads when a line comes in; then the word "awful" kills the thread that computes it.
DEADLY = """
import sys
from service.cli import serve
from service.onnx_engine import OnnxEngine
from service.settings import read_settings

AWFUL = 7

class Deadly(OnnxEngine):
    def run(self, batch, halt):
        if AWFUL in batch.input_ids_BS:
            raise SystemExit("killed")
        return super().run(batch, halt)

def open_engine(graph):
    print("loading", file=sys.stderr, flush=True)
    sys.stdin.readline()
    return Deadly(graph, threads=1)

def main(arguments):
    serve(read_settings(arguments, {}), open_engine)
"""
RUN_DEADLY = """
import sys
from sparsebert.cli import Command, run_command
sys.exit(run_command(Command(word="serve", module="deadly", extra=None, help=""), sys.argv[1:]))
"""


def test_it_is_ready_when_all_is_tested_and_ends_with_1_when_the_workers_died(
    tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    write_bundle(tmp_path / "models")
    (tmp_path / "deadly.py").write_text(DEADLY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--models", str(tmp_path / "models"), "--port", str(port), "--threads", "2"]
    command = [sys.executable, "-c", RUN_DEADLY, *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stderr is not None
            assert process.stderr.readline() == "loading\n"
            with pytest.raises(ConnectionRefusedError):
                ask(port, "GET", "/readyz")
            process.stdin.write("\n")
            process.stdin.flush()
            assert any("serving on" in line for line in process.stderr)
            assert ask(port, "GET", "/readyz")[0] == 200
            deadly = json.dumps({"inputs": "awful"}).encode()
            assert [ask(port, "POST", "/v1/predict", deadly)[0] for _ in range(MAX_DEATHS)] == [500] * MAX_DEATHS
            assert ask(port, "POST", "/v1/predict", BODY)[0] == 200
            # Of what follows the last death, some may find the process gone already.
            assert ask(port, "POST", "/v1/predict", deadly)[0] in (500, 503)
            assert process.wait(timeout=60) == 1
            *_, last = process.stderr
            assert last == "sparsebert serve: workers died again and again; the log says of what\n"
        finally:
            process.kill()


class Collector(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    sent: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.sent.append((self.path, gzip.decompress(body) if "Content-Encoding" in self.headers else body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_json_logs_and_traces(models_folder: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        flags = [*FLAGS, "--log-format", "json", "--access-log", "--otlp-endpoint", endpoint]
        with started(models_folder, *flags) as service:
            assert ask(service.port, "POST", "/v1/predict", BODY)[0] == 200
            service.process.send_signal(signal.SIGTERM)
            code, log = service.ending()
            assert code == 0
        collector.shutdown()
    lines = [json.loads(line) for line in log.splitlines()]
    # The signal may come before the line of the answered request.
    [request] = [line for line in lines if line["event"] == "request"]
    *_, stopping, stopped = [line for line in lines if line is not request]
    assert (request["event"], request["status"], request["tokens"]) == ("request", 200, 5)
    assert "request_id" not in stopping
    assert (stopping["event"], stopped["event"]) == ("stopping on SIGTERM: 0 requests in flight", "stopped")
    [(path, body)] = Collector.sent
    assert path == "/v1/traces"
    assert bytes.fromhex(request["trace_id"]) in body
    assert all(name in body for name in (b"tokenize", b"queue", b"infer", b"POST /v1/predict"))


def test_garbage_on_the_socket_harms_nobody(models_folder: Path) -> None:
    with started(models_folder, *FLAGS) as service:
        for garbage in (
            b"\0\xff\xfe garbage\r\n\r\n",
            b"POST /v1/predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"GET",
        ):
            with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
                connection.sendall(garbage)
        assert ask(service.port, "POST", "/v1/predict", BODY)[0] == 200
        service.process.send_signal(signal.SIGTERM)
        assert ends_well(service)


def fails_with(*flags: str) -> str:
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    return line


def test_a_taken_port_is_one_line(models_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = fails_with("--models", str(models_folder), "--port", port)
        assert line == (
            f"sparsebert serve: cannot listen on 127.0.0.1:{port} (Address already in use); "
            "stop what listens there or choose another --port"
        )


def test_an_address_that_is_not_here_and_a_port_that_is_not_allowed_have_cures_of_their_own() -> None:
    with pytest.raises(ConfigError, match="this machine has no such address; choose another --host"):
        bind("192.0.2.1", 0)
    refused = unusable("127.0.0.1", 80, PermissionError(errno.EACCES, "Permission denied"))
    assert str(refused) == (
        "cannot listen on 127.0.0.1:80 (Permission denied); "
        "this user may not; choose a --port from 1024 on, or give the process CAP_NET_BIND_SERVICE"
    )


def test_no_models_is_one_line(tmp_path: Path) -> None:
    assert "has no bundle in it; run `make models`" in fails_with("--models", str(tmp_path), "--port", "0")


def test_a_dry_run_prints_a_table(models_folder: Path, write_bundle: Callable[..., Path]) -> None:
    command = [*COMMAND, "--models", str(models_folder), "--dry-run"]
    good = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (good.returncode, good.stderr) == (0, "")
    assert re.search(r"^\* reviews/dense +ready +fp32 .* 50% sparse", good.stdout, re.MULTILINE)
    write_bundle(models_folder, variant="odd", golden_off_by=1.0)
    bad = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert bad.returncode == 1
    assert re.search(r"^  reviews/odd +failed", bad.stdout, re.MULTILINE)
    assert "1 of 3 variants failed" in bad.stderr
