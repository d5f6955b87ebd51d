"""The keys file is read again beside the event loop, all or nothing; what Prometheus sees of that."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.gate import Gate
from service.keys import MAX_FILE_BYTES, Key, KeyRing, Scope, make_key, read_keys, write_line
from service.metrics import Metrics
from service.rereading import MAX_UNDER_WAY, SLOW_S, KeysFile
from watching import PATIENCE_S

FIRST, SECOND, ADMIN = (
    make_key(name, scope, None, lambda size, name=name: name * size)
    for name, scope in (("first", Scope.USER), ("second", Scope.USER), ("operator", Scope.ADMIN))
)
SUCCESSFUL, READ_AT = "keys_last_reload_successful", "keys_last_reload_success_timestamp_seconds"


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


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_reading_for_which_there_is_no_thread_is_told_once_and_begun_when_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    write(path, SECOND)
    watched = Watched(path)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more_threads)
        for number in (1, 1, 2):
            watched.follow(number)
    sentence = (
        f"the keys file {path} is not read again yet (can't start new thread; let the service have more threads); that "
        "is tried until it can be, or restart the service; until then the former keys stay in force"
    )
    assert [record.getMessage() for record in told_by_it(caplog)] == 2 * [sentence]
    assert (watched.names, watched.told()) == (["first"], (0, 1000))
    watched.follow(2)
    await until(lambda: watched.told() == (1, 1500))
    assert watched.names == ["second"]


async def test_a_reading_under_way_counts_though_the_next_has_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    write(path, SECOND)
    watched = Watched(path)
    watched.follow(1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more_threads)
        watched.follow(2)
    await until(lambda: watched.names == ["second"])
    assert watched.told() == (0, 1500)  # the second was asked for, and is not read


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
        f"the keys file {tmp_path} is not read again yet (8 readings are under way; where they hang, look at its file "
        "system); that is tried until it can be, or restart the service; until then the former keys stay in force"
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
