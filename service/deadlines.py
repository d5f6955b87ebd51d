"""Until when must a request be answered, and whose limit is that?

Knows nothing about HTTP or models.
"""

from dataclasses import dataclass

SERVICE = "the service's --request-timeout-s"


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """`at_s` is in the event loop's time, `timeout_s` how long it was from the beginning, `whose` names the limit."""

    at_s: float
    timeout_s: float
    whose: str

    @property
    def of_request(self) -> bool:
        """Whether the request wished for it."""
        return self.whose != SERVICE

    def too_late(self, name: object) -> str:
        """The sentence for a request that `name` did not answer by then."""
        cure = "allow more time" if self.of_request else "have it raised"
        return f"{name} did not answer within {self.timeout_s:g} s, {self.whose}; send fewer texts at a time, or {cure}"

    def or_sooner(self, began_s: float, timeout_s: float, name: str) -> "Deadline":
        """The sooner of this one and the wish of a request, in its header or parameter `name`."""
        if began_s + timeout_s >= self.at_s:
            return self
        return Deadline(at_s=began_s + timeout_s, timeout_s=timeout_s, whose=f"the request's own {name}")


def of_service(began_s: float, timeout_s: float) -> Deadline:
    """The service's own."""
    return Deadline(at_s=began_s + timeout_s, timeout_s=timeout_s, whose=SERVICE)
