"""How much may one caller ask for in a time, and how long must it wait when that is used up?

A token bucket. The package `limits` does the like, but by the wall clock, which jumps, with a thread of its own, and
without a way to book more than fits in: a request's texts are known only after it was let in. Knows nothing about
keys or HTTP.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

PERIODS_S = {"second": 1, "minute": 60, "hour": 3600}
FORM = "a whole number and a period, such as 100/second, 6000/minute or 360000/hour"
_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour)")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many texts in a period; all of them may come at once."""

    number: int
    period_s: int


def read_rate(text: str) -> Rate:
    """`100/second`. Raises ValueError that says what is allowed."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rate; write {FORM}")
    return Rate(number=int(found[1]), period_s=PERIODS_S[found[2]])


class Bucket:
    """What a caller may still ask for. It may owe for texts of a request that was let in, and then waits longer."""

    def __init__(self, rate: Rate, clock_s: Callable[[], float]) -> None:
        self.rate = rate
        self._clock_s = clock_s
        self._balance = float(rate.number)
        self._at_s = clock_s()

    def enter(self) -> float:
        """Let one request in and take one text for it: 0, or the seconds to wait where nothing is left."""
        now_s = self._clock_s()
        per_s = self.rate.number / self.rate.period_s
        self._balance = min(self.rate.number, self._balance + (now_s - self._at_s) * per_s)
        self._at_s = now_s
        if self._balance < 1:
            return (1 - self._balance) / per_s
        self._balance -= 1
        return 0.0

    def spend(self, num_texts: int) -> None:
        """Take more, for the texts of a request that was let in."""
        self._balance -= num_texts
