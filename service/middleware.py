"""What happens around every request: it gets an id, is recorded, counted, logged and traced, and no exception leaves.

Knows nothing about models.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from random import getrandbits
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import API_HEADERS, Headers
from service.metrics import Metrics
from service.records import CURRENT, RequestRecord, Trace

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
UNMATCHED = "unmatched"
METHODS = ("GET", "POST")
OTHER_METHOD = "OTHER"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})

Fail = Callable[[str], ASGIApp]


class Tracer(Protocol):
    """Puts requests into distributed traces."""

    def begin(self, record: RequestRecord, headers: Iterable[tuple[bytes, bytes]]) -> Trace:
        """A request began; its headers may name a trace that it belongs to."""


class RequestEnvelope:
    """ASGI middleware; `fail` answers an exception that nobody expected, `stop` a request that the server cut off.

    `headers` are what every answer says besides, of the paths where that is not the usual.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        paths: Collection[tuple[str, str]],
        headers: Mapping[str, Headers],
        fail: Fail,
        stop: Fail,
        clock_s: Callable[[], float],
        tracer: Tracer | None,
        access: Callable[[RequestRecord], None] | None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._headers = headers
        self._fail = fail
        self._stop = stop
        self._clock_s = clock_s
        self._tracer = tracer
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(request_id=choose_request_id(scope), began_s=self._clock_s())
        scope.setdefault("state", {}).update(request_id=record.request_id, record=record)
        if self._tracer is not None and not is_probe(scope["path"]):
            record.trace = self._tracer.begin(record, scope["headers"])
        token = CURRENT.set(record)
        try:
            await self._answer(scope, receive, send, record)
        finally:
            self._end(scope, record)
            CURRENT.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                more = self._headers.get(scope["path"], API_HEADERS)
                message["headers"] = [*message["headers"], *headers_of(record), *more]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # the server stops and waits no longer
            if record.status == 0:
                await self._stop(record.request_id)(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", record.request_id)
            if record.status == 0:
                await self._fail(record.request_id)(scope, receive, send_with_id)

    def _end(self, scope: Scope, record: RequestRecord) -> None:
        record.method, record.route = closed_labels(scope, self._paths)
        # Without a status not even the refusal of a service that stops got through.
        record.status, record.ended_s = record.status or 503, self._clock_s()
        self._metrics.on_http(record.method, record.route, record.status, record.ended_s - record.began_s)
        if self._access is not None and not is_probe(scope["path"]):
            self._access(record)
        if record.trace is not None:
            record.trace.end(record)


def headers_of(record: RequestRecord) -> list[tuple[bytes, bytes]]:
    """What every answer tells of its request."""
    headers = [(REQUEST_ID_HEADER.encode(), record.request_id.encode())]
    if record.trace is not None:
        headers.append((b"traceparent", record.trace.traceparent.encode()))
    return headers


def is_probe(path: str) -> bool:
    """Whether a machine asks this all day for its own sake: it is neither logged nor traced."""
    return path in PROBES or (path.startswith("/v2/models/") and path.endswith("/ready"))


def choose_request_id(scope: Scope) -> str:
    """The caller's `x-request-id` when it is a plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER.encode() and _GOOD_ID.fullmatch(value):
            return str(value.decode())
    # Nobody must be unable to guess it, so it need not come from the system, which is asked with a call each time.
    return f"{getrandbits(128):032x}"


def closed_labels(scope: Scope, paths: Collection[tuple[str, str]]) -> tuple[str, str]:
    """Method and route template of a request when they are of `paths`; never a raw path or an odd method."""
    method, route = scope["method"], getattr(scope.get("route"), "path", UNMATCHED)
    if (method, route) in paths:
        return method, route
    return (method if method in METHODS else OTHER_METHOD), UNMATCHED
