"""What happens around every request: it gets an id, it is counted and timed, and no exception leaves it.

Knows nothing about models.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Mapping
from random import getrandbits

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import API_HEADERS, Headers
from service.metrics import Metrics

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-request-id"
UNMATCHED = "unmatched"
METHODS = ("GET", "POST")
OTHER_METHOD = "OTHER"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

Fail = Callable[[str], ASGIApp]


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
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._headers = headers
        self._fail = fail
        self._stop = stop
        self._clock_s = clock_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = self._clock_s(), 0
        request_id = choose_request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = self._headers.get(scope["path"], API_HEADERS)
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER.encode(), request_id.encode()), *more]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # the server stops and waits no longer
            if status == 0:
                await self._stop(request_id)(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if status == 0:
                await self._fail(request_id)(scope, receive, send_with_id)
        finally:
            method, route = closed_labels(scope, self._paths)
            # Without a status not even the refusal of a service that stops got through.
            self._metrics.on_http(method, route, status or 503, self._clock_s() - began_s)


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
