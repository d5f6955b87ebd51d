"""What is known of one request, from its beginning to its end?

Filled on the way, read by who logs and traces it; never a text. Knows nothing about HTTP frameworks, logs or traces.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from service.encoding import Encoding
from service.tickets import Answer


class Trace(Protocol):
    """A request in a distributed trace."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""

    @property
    def traceparent(self) -> str:
        """Both as W3C writes them."""

    def end(self, record: "RequestRecord") -> None:
        """The request is over."""


@dataclass(eq=False, kw_only=True, slots=True)
class VariantRun:
    """What one variant did for a request; what it did not come to is empty or None."""

    model: str
    variant: str
    version: str
    began_s: float
    encodings: Sequence[Encoding] = ()
    encoded_s: float | None = None
    answer: Answer | None = None

    @property
    def num_tokens(self) -> int:
        """As the model reads them, without padding."""
        return sum(encoding.num_tokens for encoding in self.encodings)

    @property
    def num_truncated(self) -> int:
        return sum(encoding.truncated for encoding in self.encodings)


@dataclass(eq=False, kw_only=True, slots=True)
class RequestRecord:
    """One request; times are on the service's clock. What is set at its end says so."""

    request_id: str
    began_s: float
    runs: list[VariantRun] = field(default_factory=list)
    trace: Trace | None = None
    # Set at the end.
    method: str = ""
    route: str = ""
    status: int = 0
    ended_s: float = 0.0


CURRENT: ContextVar[RequestRecord | None] = ContextVar("request", default=None)
"""The request that this task answers."""
