"""How does every request that comes through the framework get its record and its headers, and no exception out?

Knows nothing about models.
"""

import asyncio
import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.ledger import UNMATCHED, Ledger
from service.records import CURRENT, RequestRecord

log = logging.getLogger(__name__)

Fail = Callable[[str], ASGIApp]


class RequestEnvelope:
    """ASGI middleware; `fail` answers an exception that nobody expected, `stop` a request that the server cut off."""

    def __init__(self, app: ASGIApp, *, ledger: Ledger, fail: Fail, stop: Fail) -> None:
        self._app = app
        self._ledger = ledger
        self._fail = fail
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = self._ledger.begin(scope["path"], scope["headers"])
        scope.setdefault("state", {}).update(request_id=record.request_id, record=record)
        token = CURRENT.set(record)
        try:
            await self._answer(scope, receive, send, record)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._ledger.end(record, method=scope["method"], path=scope["path"], route=route)
            CURRENT.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: RequestRecord) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *self._ledger.headers_of(record, scope["path"])]
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
