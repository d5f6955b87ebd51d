"""The keys file is read again beside the event loop, all or nothing; what callers and Prometheus see of that."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app, load_keys
from service.gate import Gate
from service.hangups import Hangups
from service.keys import MAX_FILE_BYTES, Key, KeyRing, Scope, make_key, read_keys, write_line
from service.metrics import Metrics
from service.rereading import MAX_UNDER_WAY, SLOW_S, KeysFile
from service.settings import Settings
from watching import PATIENCE_S, wait_until

FIRST, SECOND, ADMIN = (
    make_key(name, scope, None, lambda size, name=name: name * size)
    for name, scope in (("first", Scope.USER), ("second", Scope.USER), ("operator", Scope.ADMIN))
)
SLOW = make_key("slow", Scope.USER, "4/hour", lambda size: "w" * size)
SUCCESSFUL, READ_AT = "keys_last_reload_successful", "keys_last_reload_success_timestamp_seconds"
ADMIN_PATH, GOOD = "/v1/admin/models", {"inputs": "the good film"}


def write(path: Path, *keys: tuple[str, Key]) -> None:
    path.write_text("".join(write_line(key) + "\n" for _, key in keys))
    path.chmod(0o600)


class Watched:
    """A keys file, a gate and clocks that are moved by hand."""

    def __init__(self, path: Path, read: Callable[[Path], KeyRing] = read_keys) -> None:
        self.metrics = Metrics([], [])
        self.gate = Gate(ring=KeyRing(keys=(FIRST[1],), read_at_s=1000.0), rate=None, clock_s=lambda: 0.0)
        self.now_s, self.ticks_s, self.num_asked = 1500.0, 0.0, 0
        self.keys_file = KeysFile(
            path,
            read,
            gate=self.gate,
            metrics=self.metrics.keys,
            num_asked=lambda: self.num_asked,
            clock_s=lambda: self.ticks_s,
            wall_clock_s=lambda: self.now_s,
        )

    def follow(self, num_asked: int) -> None:
        self.num_asked = num_asked
        self.keys_file.follow()

    @property
    def names(self) -> list[str]:
        return [key.name for key in self.gate.ring.keys]

    def told(self) -> tuple[float | None, float | None]:
        number = self.metrics.registry.get_sample_value
        return number(f"sparsebert_{SUCCESSFUL}"), number(f"sparsebert_{READ_AT}")


def told_by_it(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[logging.LogRecord]:
    """Without what others log meanwhile, and at what level other tests left the log."""
    return [one for one in caplog.records if one.name == "service.rereading" and one.levelno >= level]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


async def test_what_is_read_is_in_force_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(tmp_path / "keys")
    assert watched.told() == (1, 1000)
    write(tmp_path / "keys", SECOND, ADMIN)
    watched.now_s = 2000.0
    watched.follow(0)
    with caplog.at_level(logging.INFO):
        watched.follow(1)
        await until(lambda: watched.told() == (1, 2000))
    assert watched.names == ["second", "operator"]
    assert [record.getMessage() for record in told_by_it(caplog, logging.INFO)] == [
        f"the keys file {tmp_path / 'keys'} was read again: 2 in force; new: second, operator; gone: first"
    ]


async def test_who_asks_and_scrapes_at_once_is_told_that_the_keys_are_old(tmp_path: Path) -> None:
    watched = Watched(tmp_path, lambda path: KeyRing(keys=(SECOND[1],)))
    watched.num_asked = 1
    assert watched.told() == (0, 1000)
    watched.follow(1)
    await until(lambda: watched.names == ["second"])
    assert watched.told() == (1, 1500)
    watched.num_asked = 2  # and nobody followed yet
    assert watched.told() == (0, 1500)


async def test_keys_are_as_old_as_the_beginning_of_their_reading(tmp_path: Path) -> None:
    def read(path: Path) -> KeyRing:
        watched.now_s = 9999.0
        return KeyRing(keys=(SECOND[1],))

    watched = Watched(tmp_path, read)
    watched.follow(1)
    await until(lambda: watched.names == ["second"])
    assert watched.told() == (1, 1500)


async def test_a_reading_for_which_there_is_no_thread_is_told_and_the_next_one_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    path = tmp_path / "keys"
    write(path, SECOND)
    watched = Watched(path)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for number in range(1, MAX_UNDER_WAY + 2):
            watched.follow(number)
    assert len(told_by_it(caplog)) == MAX_UNDER_WAY + 1
    assert told_by_it(caplog)[0].getMessage() == (
        f"the keys file {path} was not read (can't start new thread); send SIGHUP again; until it is read again the "
        "former keys stay in force"
    )
    assert (watched.names, watched.told()) == (["first"], (0, 1000))
    watched.follow(MAX_UNDER_WAY + 2)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]


@pytest.mark.parametrize("broken", ["absent", "bad line", "empty", "writable", "no text", "a pipe", "large"])
async def test_a_file_that_is_none_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    path, watched = tmp_path / "keys", Watched(tmp_path / "keys")
    write(path, SECOND)
    {
        "absent": path.unlink,
        "bad line": lambda: path.write_text(f"{write_line(SECOND[1])}\nno key"),
        "empty": lambda: path.write_text("# nobody\n"),
        "writable": lambda: path.chmod(0o602),
        "no text": lambda: path.write_bytes(b"\xff\xfe"),
        "a pipe": lambda: (path.unlink(), os.mkfifo(path, 0o600)),
        "large": lambda: os.truncate(path, MAX_FILE_BYTES + 1),
    }[broken]()
    watched.follow(1)
    await until(lambda: bool(told_by_it(caplog)))
    assert (watched.names, watched.told()) == (["first"], (0, 1000))
    [error] = told_by_it(caplog)
    assert error.levelno == logging.ERROR
    assert f"keys file {path}" in error.getMessage()
    assert error.getMessage().endswith("; until it is read again the former keys stay in force")
    assert error.exc_info is None
    path.unlink(missing_ok=True)
    write(path, SECOND)
    watched.follow(2)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]


class Hanging:
    """A reader whose readings, numbered from 1, each come back when they are let go."""

    def __init__(self) -> None:
        self.num_begun = 0
        self._go_on = [threading.Event() for _ in range(2 * MAX_UNDER_WAY)]
        self._brings: dict[int, KeyRing] = {}

    def __call__(self, path: Path) -> KeyRing:
        self.num_begun += 1  # nobody begins two at once
        number = self.num_begun
        assert self._go_on[number].wait(timeout=60)
        return self._brings[number]

    def let_go(self, number: int, *keys: tuple[str, Key]) -> None:
        self._brings[number] = KeyRing(keys=tuple(key for _, key in keys))
        self._go_on[number].set()


async def ask(watched: Watched, reader: Hanging, number: int) -> None:
    watched.follow(number)
    await until(lambda: reader.num_begun == number)


async def test_a_reading_that_hangs_is_seen_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = Hanging()
    watched = Watched(tmp_path / "keys", reader)
    await ask(watched, reader, 1)
    assert (watched.names, watched.told()) == (["first"], (0, 1000))
    for watched.ticks_s in (SLOW_S - 0.1, SLOW_S, SLOW_S + 0.1):
        watched.follow(1)
    [message] = told_by_it(caplog)
    assert message.getMessage() == (
        f"reading the keys file {tmp_path / 'keys'} takes more than 5 s: look at its file system, then send SIGHUP "
        "again; until it is read again the former keys stay in force"
    )
    reader.let_go(1, SECOND)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]


async def test_what_is_not_slow_is_not_told_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(tmp_path, lambda path: KeyRing(keys=(SECOND[1],)))
    watched.follow(1)
    await until(lambda: watched.names == ["second"])
    watched.ticks_s = 2.0 * SLOW_S
    watched.follow(1)
    assert told_by_it(caplog) == []


async def test_a_newer_reading_does_not_wait_for_one_that_hangs_and_is_not_undone_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Hanging()
    watched = Watched(tmp_path, reader)
    await ask(watched, reader, 1)
    await ask(watched, reader, 2)
    reader.let_go(2, SECOND)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]
    reader.let_go(1, FIRST, SECOND)
    await until(lambda: "came back after a newer one, and is passed over" in caplog.text)
    assert (watched.names, watched.told()) == (["second"], (1, 1500))


async def test_an_older_reading_that_comes_first_counts_until_the_newer_one_comes(tmp_path: Path) -> None:
    reader = Hanging()
    watched = Watched(tmp_path, reader)
    await ask(watched, reader, 1)
    await ask(watched, reader, 2)
    reader.let_go(1, FIRST, SECOND)
    await until(lambda: watched.names == ["first", "second"])
    assert watched.told() == (0, 1500)
    reader.let_go(2, SECOND)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]


async def test_readings_that_hang_do_not_pile_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = Hanging()
    watched = Watched(tmp_path, reader)
    for number in range(1, MAX_UNDER_WAY + 1):
        await ask(watched, reader, number)
    for number in (MAX_UNDER_WAY, MAX_UNDER_WAY + 2, MAX_UNDER_WAY + 2, MAX_UNDER_WAY + 3):
        watched.follow(number)
    assert len(told_by_it(caplog)) == 2
    assert told_by_it(caplog)[0].getMessage() == (
        f"8 readings of the keys file {tmp_path} hang, and until one comes back no other is begun: look at its file "
        "system, or restart the service"
    )
    for number in range(1, MAX_UNDER_WAY + 1):
        reader.let_go(number, FIRST, SECOND)
    await until(lambda: watched.names == ["first", "second"])
    assert (reader.num_begun, watched.told()) == (MAX_UNDER_WAY, (0, 1500))
    watched.follow(MAX_UNDER_WAY + 3)
    reader.let_go(MAX_UNDER_WAY + 1, SECOND)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]


async def test_a_fault_of_the_reader_is_told_with_a_traceback_and_the_next_one_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(tmp_path, lambda path: 1 / 0)
    for num_asked in (1, 2):
        caplog.clear()
        watched.follow(num_asked)
        await until(lambda: bool(told_by_it(caplog)))
        assert told_by_it(caplog)[0].exc_info is not None
    assert (watched.names, watched.told()) == (["first"], (0, 1000))


def test_a_loop_that_ended_meanwhile_is_no_fault(tmp_path: Path) -> None:
    go_on, ended = threading.Event(), threading.Event()

    def read(path: Path) -> KeyRing:
        assert go_on.wait(timeout=60)
        ended.set()
        return KeyRing()

    async def begin() -> None:
        Watched(tmp_path, read).follow(1)

    asyncio.run(begin())
    [thread] = [one for one in threading.enumerate() if one.name == "keys"]
    go_on.set()
    thread.join()  # pytest would tell of what it raises
    assert ended.is_set()


class App:
    """A running app whose keys file changes."""

    def __init__(self, client: TestClient, path: Path, hangups: Hangups) -> None:
        self.client = client
        self._path = path
        self._hangups = hangups

    def change(self, *keys: tuple[str, Key]) -> None:
        write(self._path, *keys)
        before = self.read_at()
        self._hangups(0, None)
        self.client.portal.call(self.client.app.state.keys_file.follow)
        wait_until(lambda: self.read_at() != before)

    def read_at(self) -> str:
        lines = self.client.get("/metrics").text.splitlines()
        return next(line for line in lines if line.startswith(f"sparsebert_{READ_AT} "))

    def status(self, made: tuple[str, Key], path: str = ADMIN_PATH) -> int:
        headers = {"X-API-Key": made[0]}
        asked = {} if path == ADMIN_PATH else {"json": GOOD}
        return self.client.request("POST" if asked else "GET", path, headers=headers, **asked).status_code

    def statuses_told(self) -> set[str]:
        document = self.client.get("/openapi.json").json()
        return set(document["paths"]["/v1/models"]["get"]["responses"])


@contextmanager
def running(models: Path, path: Path, *keys: tuple[str, Key]) -> Iterator[App]:
    write(path, *keys)
    settings, hangups = Settings(models=models, threads=1, api_keys=str(path)), Hangups()
    with TestClient(create_app(settings, num_asked=lambda: hangups.num)) as client:
        yield App(client, path, hangups)


def test_the_first_reading_is_that_of_the_start_and_not_when_all_was_loaded(
    models_folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "keys", FIRST)
    settings = Settings(models=models_folder, threads=1, api_keys=str(tmp_path / "keys"))
    ring = KeyRing(keys=(FIRST[1],), read_at_s=1234.0)
    with TestClient(create_app(settings, ring=ring)) as client:
        assert f"\nsparsebert_{READ_AT} 1234.0\n" in client.get("/metrics").text


def test_the_keys_of_the_start_are_as_old_as_the_beginning_of_their_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]

    def read(path: Path) -> KeyRing:
        now_s[0] = 9999.0
        return KeyRing(keys=(FIRST[1],))

    monkeypatch.setattr("service.app.read_keys", read)
    assert load_keys(Settings(api_keys="keys"), lambda: now_s[0]).read_at_s == 1000.0


def test_the_keys_in_force_decide_whether_there_are_admin_paths(models_folder: Path, tmp_path: Path) -> None:
    with running(models_folder, tmp_path / "keys", FIRST) as app:
        assert (app.status(FIRST), app.status(ADMIN)) == (403, 403)
        app.change(FIRST, ADMIN)
        assert (app.status(FIRST), app.status(ADMIN), app.status(SECOND)) == (403, 200, 401)
        app.change(FIRST)
        assert app.status(ADMIN) == 403
        assert app.status(ADMIN, "/v1/predict") == 401


def test_a_reading_refills_no_limit_and_the_description_tells_of_new_ones(models_folder: Path, tmp_path: Path) -> None:
    with running(models_folder, tmp_path / "keys", FIRST) as app:
        assert app.statuses_told() == {"200", "401"}
        app.change(FIRST, SLOW)
        assert app.statuses_told() == {"200", "401", "429"}
        assert [app.status(SLOW, "/v1/predict") for _ in range(3)] == [200] * 3
        app.change(SLOW, SECOND)
        assert [app.status(SLOW, "/v1/predict") for _ in range(2)] == [200, 429]


def test_a_request_that_was_let_in_spends_of_its_own_bucket() -> None:
    gate = Gate(ring=KeyRing(keys=(SLOW[1],)), rate=None, clock_s=lambda: 0.0)
    headers = [(b"x-api-key", SLOW[0].encode())]
    let_in = gate.admit("/v1/predict", headers, "1")
    gate.renew(KeyRing(keys=(FIRST[1], SLOW[1])))
    let_in.spend(3)
    assert gate.admit("/v1/models", [(b"x-api-key", FIRST[0].encode())], "2") is None
    with pytest.raises(Exception, match="the rate limit is used up"):
        gate.admit("/v1/predict", headers, "3")
