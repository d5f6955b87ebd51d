"""Who may ask: which keys are there, and whose is the one that a request carries?

A key has 256 random bits: nobody finds it by trying, so one SHA-256 is as safe at rest as the slow hash that a password
needs, and costs a request a microsecond. All hashes are compared, each in constant time, so that the time tells nothing
of which one was close. Knows nothing about HTTP.
"""

import hashlib
import hmac
import logging
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from service.rates import read_rate
from sparsebert.errors import ConfigError

log = logging.getLogger(__name__)

PREFIX = "sparsebert_"
KEY_BYTES = 32
NAME_FORM = r"^[A-Za-z0-9._-]{1,64}$"
CURE = "make keys with `sparsebert key`"
# Some thousand keys; a file that grew without end must not take the memory of what serves.
MAX_FILE_BYTES = 1_000_000
AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # a flag to open with: no pipe is waited for


class Scope(StrEnum):
    """What a key is good for; an admin may do what a user may."""

    USER = "user"
    ADMIN = "admin"


def _is_rate(text: str) -> str:
    read_rate(text)
    return text


class Key(BaseModel):
    """One line of a keys file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME_FORM)]
    scope: Scope
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    rate_limit: Annotated[str, AfterValidator(_is_rate)] | None = None


@dataclass(frozen=True, kw_only=True)
class KeyRing:
    """The keys of a service; none means that none is asked for. Begun to be read when, in seconds since unix epoch."""

    keys: tuple[Key, ...] = ()
    read_at_s: float = 0.0

    @property
    def has_admin(self) -> bool:
        return any(key.scope is Scope.ADMIN for key in self.keys)

    def find(self, plain: bytes) -> Key | None:
        """The key that `plain` is, if it is one."""
        digest, found = digest_of(plain), None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def digest_of(plain: bytes) -> str:
    """What is stored of a key."""
    return hashlib.sha256(plain).hexdigest()


def make_key(name: str, scope: Scope, rate_limit: str | None, random_text: Callable[[int], str]) -> tuple[str, Key]:
    """A new key in plain, to be told once, and what is stored of it; `random_text` writes so many random bytes.

    Raises ConfigError for a bad name or rate.
    """
    plain = PREFIX + random_text(KEY_BYTES)
    try:
        key = Key(name=name, scope=scope, sha256=digest_of(plain.encode()), rate_limit=rate_limit)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error
    return plain, key


def write_line(key: Key) -> str:
    """A line of a keys file, without its end."""
    return key.model_dump_json(exclude_none=True)


def read_keys(path: Path) -> KeyRing:
    """The keys of a file. Raises ConfigError naming line and cure; warns when everybody on the machine may read it."""
    try:
        text, mode = _open(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"the keys file {path} cannot be read ({reason}); {CURE}, or name another file") from error
    if mode & stat.S_IWOTH:
        raise ConfigError(f"everybody on this machine may write into the keys file {path}; chmod 600 it")
    if mode & stat.S_IROTH:
        log.warning("everybody on this machine may read the keys file %s; chmod 600 it", path)
    ring = parse_keys(text.splitlines(), path)
    if not ring.keys:
        raise ConfigError(
            f"the keys file {path} has no key in it; {CURE}, and before the last one is taken out make another, or "
            "stop the service"
        )
    return ring


def _open(path: Path) -> tuple[str, int]:
    """Text and mode of a keys file."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | AT_ONCE)) as file:
        return bytes_of(file, path).decode(), os.fstat(file.fileno()).st_mode


def bytes_of(file: BinaryIO, path: Path) -> bytes:
    """What stands in a file that was opened `AT_ONCE`. Raises ConfigError for one that is no regular file or too large.

    What is no regular file may let who reads it wait for ever, or never end.
    """
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ConfigError(f"the keys file {path} is no regular file; name another")
    read = file.read(MAX_FILE_BYTES + 1)
    if len(read) > MAX_FILE_BYTES:
        raise ConfigError(f"the keys file {path} has more than {MAX_FILE_BYTES} bytes; take lines out, or name another")
    return read


def parse_keys(lines: Sequence[str], path: Path) -> KeyRing:
    """A key a line, in JSON; empty lines and those that begin with # are passed over. Raises ConfigError."""
    keys: list[Key] = []
    names: set[str] = set()
    hashes: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key = Key.model_validate_json(line)
        except ValidationError as error:
            raise ConfigError(f"line {number} of the keys file {path} is no key: {_sentence(error)}; {CURE}") from error
        if key.name in names or key.sha256 in hashes:
            raise ConfigError(
                f"line {number} of the keys file {path} has the name or the hash of another key; remove it"
            )
        keys.append(key)
        names.add(key.name)
        hashes.add(key.sha256)
    return KeyRing(keys=tuple(keys))


def _sentence(error: ValidationError) -> str:
    """Without the input, which may be a plain key in the wrong place."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{place}: {first['ctx']['error']}"
    return f"{place or 'the line'}: {first['msg'][0].lower()}{first['msg'][1:]}"
