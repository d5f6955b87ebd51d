"""How are the requests answered that come whole and are asked all day, without a framework in between?

FastAPI describes these routes and answers what comes otherwise: in pieces, from pages of other origins, through another
server. Knows nothing about connections or models.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from service.asking import LEFT, TIMEOUT, read_deadline
from service.errors import ClientGoneError, ServiceError
from service.exchange import Asked, RawHeaders, Reply, header
from service.gate import Gate
from service.ledger import Ledger
from service.records import CURRENT, RequestRecord
from service.refusing import refusal, rejection, stopping, unexpected
from service.routes.reach import Handler
from service.serving import Serving

log = logging.getLogger(__name__)

METHOD = "POST"


class Caller(Protocol):
    """Who asked."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more; what works on it is cancelled then."""


class DirectRoutes:
    """The handlers by path, and what else happens around every request; one task of the event loop each."""

    def __init__(self, handlers: Mapping[str, Handler], *, gate: Gate, ledger: Ledger) -> None:
        self._handlers = handlers
        self._gate = gate
        self._ledger = ledger
        self._serving: Serving

    def begin(self, serving: Serving) -> None:
        """From now on the handlers are given this."""
        self._serving = serving

    def max_body_bytes(self, path: str) -> int:
        """The longest body that is answered here; -1 for a path that is not."""
        return self._serving.settings.max_body_bytes if path in self._handlers else -1

    async def answer(
        self, path: str, headers: RawHeaders, body: bytes, caller: Caller, write: Callable[[Reply], Awaitable[None]]
    ) -> None:
        """Answer a POST through `write`, and write down what happened."""
        record = self._ledger.begin(path, headers)
        CURRENT.set(record)
        try:
            reply = await self._reply(path, headers, body, caller, record)
            record.status = reply.status
            reply.headers += self._ledger.headers_of(record, path)
            await write(reply)
        finally:
            self._ledger.end(record, method=METHOD, path=path, route=path)

    async def _reply(self, path: str, headers: RawHeaders, body: bytes, caller: Caller, record: RequestRecord) -> Reply:
        try:
            if caller.gone:
                raise ClientGoneError(LEFT)
            return await self._handle(path, headers, body, record)
        except ServiceError as error:
            return self._refuse(error, record)
        except asyncio.CancelledError:
            return self._refuse(ClientGoneError(LEFT), record) if caller.gone else stopping(record.request_id)
        except Exception:
            log.exception("request %s failed", record.request_id)
            return unexpected(record.request_id)

    async def _handle(self, path: str, headers: RawHeaders, body: bytes, record: RequestRecord) -> Reply:
        bucket = self._gate.admit(path, headers, record.request_id)
        serving = self._serving
        with serving.drain.admitted():
            now_s = asyncio.get_running_loop().time()
            deadline = read_deadline(header(headers, TIMEOUT), now_s, serving.settings.request_timeout_s)
            return await self._handlers[path](
                serving, Asked(body=body, deadline=deadline, record=record, bucket=bucket)
            )

    def _refuse(self, error: ServiceError, record: RequestRecord) -> Reply:
        reason = rejection(error, METHOD)
        if reason is not None:
            self._serving.metrics.on_rejection(reason)
        return refusal(error, record.request_id)
