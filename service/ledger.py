"""What is written down of every request, from its beginning to its end, and told in its answer?

Knows nothing about who reads requests and writes answers, or models.
"""

import re
from collections.abc import Callable, Collection, Mapping
from random import getrandbits
from typing import Protocol

from service.exchange import RawHeaders
from service.headers import API_HEADERS, Headers
from service.metrics import Metrics
from service.records import RequestRecord, Trace

REQUEST_ID_HEADER = b"x-request-id"
UNMATCHED = "unmatched"
METHODS = ("GET", "POST")
OTHER_METHOD = "OTHER"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


class Tracer(Protocol):
    """Puts requests into distributed traces."""

    def begin(self, record: RequestRecord, headers: RawHeaders) -> Trace:
        """A request began; its headers may name a trace that it belongs to."""


class Ledger:
    """Begins and ends the record of each request: an id, counts, a line in the log, a trace.

    `headers` are what every answer says besides, of the paths where that is not the usual.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        paths: Collection[tuple[str, str]],
        headers: Mapping[str, Headers],
        clock_s: Callable[[], float],
        tracer: Tracer | None,
        access: Callable[[RequestRecord], None] | None,
    ) -> None:
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._headers = headers
        self._clock_s = clock_s
        self._tracer = tracer
        self._access = access

    def begin(self, path: str, headers: RawHeaders) -> RequestRecord:
        """A request comes in."""
        record = RequestRecord(request_id=choose_request_id(headers), began_s=self._clock_s())
        if self._tracer is not None and not is_probe(path):
            record.trace = self._tracer.begin(record, headers)
        return record

    def headers_of(self, record: RequestRecord, path: str) -> Headers:
        """What every answer tells of its request, and tells browsers."""
        own: Headers = ((REQUEST_ID_HEADER, record.request_id.encode()),)
        if record.trace is not None:
            own = (*own, (b"traceparent", record.trace.traceparent.encode()))
        return own + self._headers.get(path, API_HEADERS)

    def end(self, record: RequestRecord, *, method: str, path: str, route: str) -> None:
        """It is answered, with the status in the record; without one not even a refusal got through."""
        record.method, record.route = closed_labels(method, route, self._paths)
        record.status, record.ended_s = record.status or 503, self._clock_s()
        self._metrics.on_http(record.method, record.route, record.status, record.ended_s - record.began_s)
        if self._access is not None and not is_probe(path):
            self._access(record)
        if record.trace is not None:
            record.trace.end(record)


def is_probe(path: str) -> bool:
    """Whether a machine asks this all day for its own sake: it is neither logged nor traced."""
    return path in PROBES or (path.startswith("/v2/models/") and path.endswith("/ready"))


def choose_request_id(headers: RawHeaders) -> str:
    """The caller's `x-request-id` when it is a plain word, else a new one."""
    for name, value in headers:
        if name == REQUEST_ID_HEADER and _GOOD_ID.fullmatch(value):
            return value.decode()
    # Nobody must be unable to guess it, so it need not come from the system, which is asked with a call each time.
    return f"{getrandbits(128):032x}"


def closed_labels(method: str, route: str, paths: Collection[tuple[str, str]]) -> tuple[str, str]:
    """Method and route template of a request when they are of `paths`; never a raw path or an odd method."""
    if (method, route) in paths:
        return method, route
    return (method if method in METHODS else OTHER_METHOD), UNMATCHED
