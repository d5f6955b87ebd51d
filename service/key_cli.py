"""`sparsebert key`: how does an operator get a new key?

Tells the key once, on standard output; the file gets its hash.
"""

import argparse
import fcntl
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from service.keys import AT_ONCE, MAX_FILE_BYTES, Key, Scope, bytes_of, make_key, parse_keys, write_line
from service.rates import FORM
from sparsebert.errors import ConfigError

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsebert key",
        description="Make an API key, add its hash to a keys file and print the key, which cannot be had again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--api-keys",
        metavar="FILE",
        type=Path,
        required=True,
        help="keys file of sparsebert serve; made when not there",
    )
    parser.add_argument("--name", metavar="WORD", required=True, help="who will use it; letters, digits, '.', '_', '-'")
    parser.add_argument(
        "--scope", choices=[scope.value for scope in Scope], default=Scope.USER.value,
        help="admin may also load and unload models [default: user]",
    )  # fmt: skip
    parser.add_argument("--rate-limit", metavar="RATE", help=f"texts that it may ask for: {FORM}")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Make one key. Raises ConfigError."""
    options = build_parser().parse_args(arguments)
    plain, key = make_key(options.name, Scope(options.scope), options.rate_limit, secrets.token_urlsafe)
    append(options.api_keys, key)
    sys.stdout.write(plain + "\n")
    log.info("added %s (%s) to %s; keep the key, it is written nowhere", key.name, key.scope.value, options.api_keys)
    log.info("send the service SIGHUP, or start it again, for it to count")


def append(path: Path, key: Key) -> None:
    """Add a line to a keys file that only its owner can read. Raises ConfigError when it is none, or has the name."""
    is_new = not path.exists()
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | AT_ONCE, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the keys file {path} cannot be opened ({error.strerror}); name a file of a folder that is there, and "
            "that you may write to"
        ) from error
    with os.fdopen(opened, "rb") as file:
        try:
            _lock(opened, path, is_new=is_new)
            before = bytes_of(file, path).decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is no keys file; name another --api-keys") from error
        joint = "" if not before or before.endswith("\n") else "\n"
        if any(one.name == key.name for one in parse_keys(before.splitlines(), path).keys):
            raise ConfigError(f"there is a key named {key.name} in {path} already; choose another --name")
        line = f"{joint}{write_line(key)}\n".encode()
        if os.fstat(opened).st_size + len(line) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is full: the service reads {MAX_FILE_BYTES} bytes of it; take lines out first")
        _write(opened, line, path, is_new=is_new)


def _lock(opened: int, path: Path, *, is_new: bool) -> None:
    """Others that add a key wait until the file is closed. Raises ConfigError where it cannot be had."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
    except OSError as error:
        if is_new and not os.fstat(opened).st_size:
            path.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be locked ({error.strerror}); name a file of another file system") from error


def _write(opened: int, line: bytes, path: Path, *, is_new: bool) -> None:
    """The whole line or nothing of it, nor of a file that is new. Raises ConfigError."""
    size_bytes = os.fstat(opened).st_size
    try:
        while line:  # what takes but a part of it says why when it gets the rest
            line = line[os.write(opened, line) :]
    except OSError as error:
        os.ftruncate(opened, size_bytes)
        if is_new and not size_bytes:
            path.unlink()
        raise ConfigError(f"{path} cannot be written ({error.strerror}); make room, then run this again") from error
