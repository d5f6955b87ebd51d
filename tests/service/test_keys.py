"""Keys are told once, stored as hashes, and a bad file is one sentence."""

import errno
import fcntl
import io
import json
import logging
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.key_cli import main
from service.keys import MAX_FILE_BYTES, Key, KeyRing, Scope, digest_of, make_key, parse_keys, read_keys, write_line
from service.rates import FORM
from sparsebert.cli import run
from sparsebert.errors import ConfigError

PLAIN, KEY = make_key("ci", Scope.USER, "100/second", lambda num_bytes: "r" * num_bytes)

OF_ITS_NAME = KEY.model_copy(update={"sha256": "0" * 64})
OF_ITS_HASH = KEY.model_copy(update={"name": "other"})


def ring_of(*names: str) -> tuple[KeyRing, list[bytes]]:
    made = [make_key(name, Scope.USER, None, lambda _, name=name: name * 9) for name in names]
    return KeyRing(keys=tuple(key for _, key in made)), [plain.encode() for plain, _ in made]


def test_a_key_has_256_random_bits_and_is_not_in_its_line() -> None:
    assert PLAIN == "sparsebert_" + "r" * 32
    assert json.loads(write_line(KEY)) == {
        "name": "ci", "scope": "user", "sha256": digest_of(PLAIN.encode()), "rate_limit": "100/second",
    }  # fmt: skip
    assert PLAIN not in write_line(KEY)


def test_every_key_is_found_and_nothing_else() -> None:
    ring, plains = ring_of("first", "second", "third")
    found = [ring.find(plain) for plain in plains]
    assert [key.name if key else None for key in found] == ["first", "second", "third"]
    for wrong in (b"", b"first", plains[0][:-1], plains[0] + b"x", plains[0].upper(), digest_of(plains[0]).encode()):
        assert ring.find(wrong) is None
    assert KeyRing().find(plains[0]) is None


def test_all_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(stored: str, digest: str) -> bool:
        compared.append(stored)
        return stored == digest

    monkeypatch.setattr("service.keys.hmac.compare_digest", compare)
    ring, plains = ring_of("first", "second", "third")
    assert ring.find(plains[0]) == ring.keys[0]
    assert compared == [key.sha256 for key in ring.keys]


def test_the_command_makes_keys_that_the_service_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.jsonl"
    main(["--api-keys", str(path), "--name", "ci"])
    main(["--api-keys", str(path), "--name", "ops", "--scope", "admin", "--rate-limit", "5/minute"])
    first, second = capsys.readouterr().out.split()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert first not in text
    assert second not in text
    ring = read_keys(path)
    assert [(key.name, key.scope, key.rate_limit) for key in ring.keys] == [
        ("ci", Scope.USER, None), ("ops", Scope.ADMIN, "5/minute"),
    ]  # fmt: skip
    assert ring.find(first.encode()) == ring.keys[0]
    assert ring.find(second.encode()) == ring.keys[1]
    assert ring.has_admin


def test_a_file_without_an_end_of_line_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(write_line(KEY))
    main(["--api-keys", str(path), "--name", "other"])
    assert [key.name for key in read_keys(path).keys] == ["ci", "other"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--name", "ci"], "there is a key named ci in {path} already; choose another --name"),
        (["--name", "a b"], "name: string should match pattern '^[A-Za-z0-9._-]{{1,64}}$'"),
        (
            ["--name", "x", "--rate-limit", "9"],
            "rate_limit: '9' is no rate; write {form}",
        ),
    ],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(write_line(KEY) + "\n")
    assert run(["key", "--api-keys", str(path), *words]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"sparsebert key: {sentence.format(path=path, form=FORM)}\n")
    assert path.read_text() == write_line(KEY) + "\n"


def test_a_keys_file_that_cannot_be_opened_is_told_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, reason in ((tmp_path / "none" / "keys", "No such file or directory"), (tmp_path, "Is a directory")):
        assert run(["key", "--api-keys", str(path), "--name", "ci"]) == 1
        assert capsys.readouterr().err == (
            f"sparsebert key: the keys file {path} cannot be opened ({reason}); name a file of a folder that is there, "
            "and that you may write to\n"
        )


def test_the_command_waits_for_no_pipe_and_reads_no_file_without_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, large, full = (tmp_path / name for name in ("pipe", "large", "full"))
    os.mkfifo(pipe)
    large.touch()
    os.truncate(large, 10**10)
    full.write_text(write_line(KEY).ljust(MAX_FILE_BYTES, "\n"))
    for path, reason in (
        (pipe, f"the keys file {pipe} is no regular file; name another"),
        (large, f"the keys file {large} has more than 1000000 bytes; take lines out, or name another"),
        (full, f"{full} is full: the service reads 1000000 bytes of it; take lines out first"),
    ):
        assert run(["key", "--api-keys", str(path), "--name", "other"]) == 1
        assert capsys.readouterr().err == f"sparsebert key: {reason}\n"
    assert (large.stat().st_size, full.stat().st_size) == (10**10, 10**6)


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full; Python passes over the signal that would come with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_bytes", [0, 1, 60])
def test_a_line_for_which_there_is_no_room_is_not_told_as_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], room_bytes: int
) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(write_line(KEY))
    with no_file_larger_than(path.stat().st_size + room_bytes):
        assert run(["key", "--api-keys", str(path), "--name", "cut"]) == 1
    told = capsys.readouterr()
    reason = "cannot be written (File too large); make room, then run this again"
    assert (told.out, told.err) == ("", f"sparsebert key: {path} {reason}\n")
    assert path.read_text() == write_line(KEY)


class Parts(io.FileIO):
    """A file that gives some bytes at a time, as a system may."""

    def read(self, size: int = -1) -> bytes:
        return super().read(10)

    def readinto(self, into: memoryview) -> int:
        return super().readinto(memoryview(into)[:10])


def in_parts(opened: int, mode: str, buffering: int = -1) -> io.FileIO | io.BufferedReader:
    return io.BufferedReader(Parts(opened)) if buffering else Parts(opened)


def test_who_adds_a_key_waits_for_others_before_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.jsonl"

    def others_first(opened: int, operation: int) -> None:
        assert operation == fcntl.LOCK_EX
        path.write_text(f"{write_line(KEY)}\n")

    monkeypatch.setattr(fcntl, "flock", others_first)
    assert run(["key", "--api-keys", str(path), "--name", KEY.name]) == 1
    assert capsys.readouterr().err.endswith(
        f"there is a key named {KEY.name} in {path} already; choose another --name\n"
    )
    assert path.read_text() == f"{write_line(KEY)}\n"


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(opened: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "keys.jsonl"
    assert run(["key", "--api-keys", str(path), "--name", "ci"]) == 1
    assert capsys.readouterr().err == (
        f"sparsebert key: {path} cannot be locked (No locks available); name a file of another file system\n"
    )
    assert not path.exists()
    path.touch()  # an empty one that was there stays
    assert run(["key", "--api-keys", str(path), "--name", "ci"]) == 1
    assert path.exists()


@pytest.mark.usefixtures("capsys")  # what is told needs no file there
def test_no_empty_file_is_left_where_there_is_no_room(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    with no_file_larger_than(0):
        assert run(["key", "--api-keys", str(path), "--name", "ci"]) == 1
    assert not path.exists()


def test_a_read_that_comes_in_parts_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(write_line(KEY) + "\n")
    monkeypatch.setattr("service.key_cli.os.fdopen", in_parts)
    with pytest.raises(ConfigError, match="there is a key named ci in"):
        main(["--api-keys", str(path), "--name", "ci"])


def test_every_key_is_looked_at_a_few_times_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    num_looks = 0

    class Looked(Key):
        def __getattribute__(self, name: str) -> object:
            nonlocal num_looks
            num_looks += name in ("name", "sha256")
            return super().__getattribute__(name)

    ring, _ = ring_of(*(f"key-{number}" for number in range(100)))
    monkeypatch.setattr("service.keys.Key", Looked)
    parsed = parse_keys([write_line(key) for key in ring.keys], Path("keys"))
    assert len(parsed.keys) == 100
    assert num_looks <= 400


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "sparsebert_in_plain",
            "line 3 of the keys file keys is no key: the line: invalid JSON: expected value at line 1",
        ),
        ('{"name": "a", "scope": "user"}', "line 3 of the keys file keys is no key: sha256: field required"),
        ('{"name": "a", "scope": "root", "sha256": "0"}', "scope: input should be 'user' or 'admin'"),
        ('{"name": "a", "scope": "user", "sha256": "sparsebert_in_plain"}', "sha256: string should match pattern"),
        (write_line(KEY), "line 3 of the keys file keys has the name or the hash of another key; remove it"),
        (write_line(OF_ITS_NAME), "line 3 of the keys file keys has the name or the hash of another key; remove it"),
        (write_line(OF_ITS_HASH), "line 3 of the keys file keys has the name or the hash of another key; remove it"),
    ],
)
def test_a_malformed_line_is_named_and_not_quoted(line: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(["# keys", write_line(KEY), line], Path("keys"))
    assert sentence in str(caught.value)
    assert "in_plain" not in str(caught.value)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no regular file; name another"):
        read_keys(path)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(write_line(KEY).ljust(MAX_FILE_BYTES, "\n"))
    path.chmod(0o600)
    assert [key.name for key in read_keys(path).keys] == [KEY.name]
    os.truncate(path, 10**10)
    with pytest.raises(ConfigError, match="has more than 1000000 bytes; take lines out, or name another"):
        read_keys(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read .* make keys with `sparsebert key`"):
        read_keys(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.write_text("# nobody yet\n\n")
    with pytest.raises(ConfigError, match="make keys with `sparsebert key`, and before the last one is taken out make"):
        read_keys(empty)


def test_a_file_that_others_may_write_is_refused_and_one_that_they_may_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(write_line(KEY))
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        read_keys(path)
    assert caplog.text == ""
    path.chmod(0o644)
    read_keys(path)
    assert f"everybody on this machine may read the keys file {path}; chmod 600 it" in caplog.text
    path.chmod(0o602)
    with pytest.raises(ConfigError, match="may write into the keys file .*; chmod 600 it"):
        read_keys(path)
