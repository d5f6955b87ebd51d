"""Is the service stopping, and is it done with what it had begun?

Knows nothing about signals, HTTP or batchers.
"""

from service.errors import STOPPING, DrainingError

REFUSAL_S = 1.0


class Drain:
    """Counts requests in flight; once begun it admits no more and is over when none is left or time is up."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._began_s: float | None = None
        self.num_inflight = 0

    @property
    def draining(self) -> bool:
        return self._began_s is not None

    def begin(self, now_s: float) -> None:
        """Admit no more; the first call counts."""
        if self._began_s is None:
            self._began_s = now_s

    def is_late(self, now_s: float) -> bool:
        """Whether the time is up for requests that are still in flight."""
        return self._began_s is not None and self.num_inflight > 0 and now_s - self._began_s >= self._timeout_s

    def is_over(self, now_s: float) -> bool:
        """Whether the service may stop now: nothing is in flight, or not even the refusals got through."""
        return self._began_s is not None and (
            self.num_inflight == 0 or now_s - self._began_s >= self._timeout_s + REFUSAL_S
        )

    def admitted(self) -> "Drain":
        """While a block of this runs a request is in flight. Raises DrainingError once the drain has begun."""
        if self.draining:
            raise DrainingError(STOPPING)
        return self

    def __enter__(self) -> None:
        self.num_inflight += 1

    def __exit__(self, *error: object) -> None:
        self.num_inflight -= 1
