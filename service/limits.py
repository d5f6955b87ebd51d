"""Which keys are in force, and what has each of them left when they are read anew?

Pure but for the clock that buckets are given. Knows nothing about files or HTTP.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from service.keys import Key, KeyRing
from service.rates import Bucket, Rate, read_rate

MAX_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class InForce:
    """By what callers are judged at one moment; never changed, only replaced as a whole.

    `buckets` are by the names of keys; those who are asked for none share that of "".
    """

    ring: KeyRing = field(default_factory=KeyRing)
    buckets: Mapping[str, Bucket] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The names of keys that came, went, or are the same no more, in the order of their files."""

    new: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        told = {"new": self.new, "gone": self.gone, "changed": self.changed}
        return "; ".join(f"{word}: {_some(names)}" for word, names in told.items() if names) or "none changed"


def renew(former: InForce, ring: KeyRing, general: Rate | None, make: Callable[[Rate], Bucket]) -> InForce:
    """Put keys in force. One with the name, hash and rate of before has left what it had; others begin anew."""
    kept = {(key.name, key.sha256): former.buckets.get(key.name) for key in former.ring.keys}
    buckets = {}
    for name, sha256, rate in _limits(ring, general):
        bucket = kept.get((name, sha256))
        buckets[name] = bucket if bucket is not None and bucket.rate == rate else make(rate)
    return InForce(ring=ring, buckets=buckets)


def _limits(ring: KeyRing, general: Rate | None) -> Iterator[tuple[str, str, Rate]]:
    """Name, hash and rate of everybody who has one."""
    for key in ring.keys:
        rate = general if key.rate_limit is None else read_rate(key.rate_limit)
        if rate is not None:
            yield key.name, key.sha256, rate
    if not ring.keys and general is not None:
        yield "", "", general


def changes(before: KeyRing, now: KeyRing) -> Changes:
    """What differs."""
    old, new = _by_name(before), _by_name(now)
    return Changes(
        new=tuple(name for name in new if name not in old),
        gone=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
    )


def _some(names: Sequence[str]) -> str:
    """The first ones, and how many more there are: a file may hold thousands."""
    more = len(names) - MAX_TOLD
    return ", ".join(names[:MAX_TOLD]) + (f" and {more} more" if more > 0 else "")


def _by_name(ring: KeyRing) -> dict[str, Key]:
    return {key.name: key for key in ring.keys}
