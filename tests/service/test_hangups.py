"""SIGHUP to the real process: keys change under traffic, a broken file changes nothing, and without keys it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Self

import httpx
import pytest

from benchmarks.service_process import Served, begun, started
from service.arguments import env_name, flag_name
from service.keys import Key, Scope, make_key, write_line
from service.settings import read_settings
from service.starting import FLAG, VARIABLE, names_keys
from watching import wait_until

BODY = json.dumps({"inputs": "the good film"}).encode()
KEPT, LEAKED, NEW = (
    make_key(name, Scope.USER, None, lambda size, name=name: name * size) for name in ("kept", "leaked", "new")
)
SUCCESSFUL, READ_AT = "keys_last_reload_successful", "keys_last_reload_success_timestamp_seconds"


def write(path: Path, *keys: tuple[str, Key]) -> None:
    path.write_text("".join(write_line(key) + "\n" for _, key in keys))
    path.chmod(0o600)


class Caller:
    """Asks over one connection."""

    def __init__(self, service: Served, made: tuple[str, Key] | None = None) -> None:
        headers = {"X-API-Key": made[0]} if made else {}
        self.http = httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=60)

    def predict(self) -> int:
        return self.http.post("/v1/predict", content=BODY).status_code

    def number(self, name: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"sparsebert_{name} "))


@pytest.fixture
def unheard() -> Iterator[None]:
    """What is started meanwhile has SIGHUP as a terminal's programs have it, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def calling(service: Served, made: tuple[str, Key] | None = None) -> Iterator[Caller]:
    caller = Caller(service, made)
    with caller.http:
        yield caller


class Traffic:
    """Predicts, one after the other, for as long as the block runs, and notes each status."""

    def __init__(self, caller: Caller) -> None:
        self.statuses: list[int] = []
        self._caller = caller
        self._noted = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended:
            status = self._caller.predict()
            with self._noted:
                self.statuses.append(status)
                self._noted.notify_all()

    def wait_for_more(self) -> None:
        """Until requests were answered that began after this call."""
        with self._noted:
            enough = len(self.statuses) + 3
            assert self._noted.wait_for(lambda: len(self.statuses) >= enough, timeout=60)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self._thread.join()


@contextmanager
def let_in(service: Served, made: tuple[str, Key]) -> Iterator[socket.socket]:
    """A request that the gate has let in, and whose body is still to come."""
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {made[0]}\r\nContent-Length: {len(BODY)}\r\n"
        "Connection: close\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as slow:
        slow.sendall(head.encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")
        yield slow


def test_keys_change_under_traffic_and_a_broken_file_changes_nothing(models_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write(path, KEPT, LEAKED)
    with (
        started(models_folder, "--threads", "1", "--api-keys", str(path)) as service,
        calling(service) as watching,
        calling(service, KEPT) as one,
        calling(service, LEAKED) as two,
        calling(service, NEW) as new,
    ):
        with Traffic(one) as of_kept, Traffic(two) as of_leaked, let_in(service, LEAKED) as slow:
            of_leaked.wait_for_more()
            before = watching.number(READ_AT)
            write(path, KEPT, NEW)
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda: watching.number(READ_AT) != before)
            of_kept.wait_for_more()
            of_leaked.wait_for_more()
            slow.sendall(BODY)
            assert slow.recv(1000).startswith(b"HTTP/1.1 200")
        assert set(of_kept.statuses) == {200}
        assert [status for status, _ in groupby(of_leaked.statuses)] == [200, 401]
        assert (new.predict(), watching.number(SUCCESSFUL)) == (200, 1)
        path.write_text("no key\n")
        service.process.send_signal(signal.SIGHUP)
        assert watching.number(SUCCESSFUL) == 0
        wait_until(lambda: "is no key" in service.log)
        assert new.predict() == 200
        service.process.send_signal(signal.SIGTERM)
        code, log = service.ending()
    assert (code, "Traceback" in log) == (0, False)
    assert f"the keys file {path} was read again: 2 in force; new: new; gone: leaked\n" in log
    assert f"line 1 of the keys file {path} is no key: " in log
    assert not any(plain in log for plain, _ in (KEPT, LEAKED, NEW))


def opened_for(pipe: Path) -> int:
    """The end to write of a pipe that another process opened, or opens soon, to read."""
    found: list[int] = []

    def is_open() -> bool:
        with suppress(OSError):  # ENXIO: nobody reads yet
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    wait_until(is_open)
    return found[0]


def test_keys_that_change_while_bundles_load_are_read_again(models_folder: Path, tmp_path: Path) -> None:
    path, broken = tmp_path / "keys", models_folder / "reviews" / "odd"
    write(path, LEAKED)
    broken.mkdir()
    os.mkfifo(broken / "manifest.json")
    with begun(models_folder, "--threads", "1", "--api-keys", str(path)) as service:
        asked = opened_for(broken / "manifest.json")
        write(path, NEW)
        service.process.send_signal(signal.SIGHUP)
        os.close(asked)
        with calling(service) as watching, calling(service, LEAKED) as former, calling(service, NEW) as new:
            wait_until(lambda: watching.number(SUCCESSFUL) == 1)
            assert (former.predict(), new.predict()) == (401, 200)
        service.process.send_signal(signal.SIGTERM)
        assert service.ending()[0] == 0


# Comes when the first of what takes long is imported.
HUNG_UP = """
import signal, sys

class Hangup:
    def find_spec(self, name, path, target=None):
        if name in ("fastapi", "numpy", "onnxruntime", "pydantic", "uvicorn"):
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGHUP)

sys.meta_path.insert(0, Hangup())
from sparsebert.cli import run
sys.exit(run(sys.argv[1:]))
"""


# Comes when the interpreter lets go of what is left, and handles signals no more.
HUNG_UP_LATE = """
import os, signal, sys
from sparsebert.cli import run

class Hangup:
    def __del__(self, kill=os.kill, process_id=os.getpid(), number=signal.SIGHUP):
        kill(process_id, number)

hangup = Hangup()
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.usefixtures("unheard")
@pytest.mark.parametrize("program", [HUNG_UP, HUNG_UP_LATE], ids=["imports", "ends"])
@pytest.mark.parametrize(("flags", "code"), [(["--api-keys", "keys"], 0), ([], -signal.SIGHUP)])
def test_with_a_keys_file_it_does_not_end_while_it_imports_or_ends(program: str, flags: list[str], code: int) -> None:
    command = [sys.executable, "-c", program, "serve", *flags, "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        ([], {}, False),
        (["--port", "0"], {"SPARSEBERT_API_KEYS": "keys"}, True),
        ([], {"sparsebert_Api_keys": "keys"}, True),
        ([], {"SPARSEBERT_API_KEYS": ""}, False),
        (["--api-keys", "keys", "--port", "0"], {}, True),
        (["--api-keys=keys"], {}, True),
        (["--api-keys="], {"SPARSEBERT_API_KEYS": "keys"}, False),
        (["--api-keys", "", "--port", "0"], {"SPARSEBERT_API_KEYS": "keys"}, False),
        (["--api-keys"], {}, False),
    ],
)
def test_whether_keys_are_named_is_seen_as_the_settings_see_it(
    words: list[str], environment: dict[str, str], named: bool
) -> None:
    assert names_keys(words, environment) is named
    if words != ["--api-keys"]:  # which is wrong usage
        assert bool(read_settings(words, environment).api_keys) is named


def test_the_names_are_those_of_the_setting() -> None:
    assert (flag_name("api_keys"), env_name("api_keys")) == (FLAG, VARIABLE)


@pytest.mark.usefixtures("unheard")
def test_without_a_keys_file_it_ends_with_its_terminal(models_folder: Path) -> None:
    with started(models_folder, "--threads", "1") as service:
        service.process.send_signal(signal.SIGHUP)
        assert service.process.wait(timeout=60) == -signal.SIGHUP
