"""How are the requests answered that come whole and are asked all day, without a framework in between?

FastAPI describes these routes and answers what comes otherwise: in pieces, from pages of other origins, through another
server. Knows nothing about connections or models.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Route:
    """Under which template a path is counted, and who answers it."""

    template: str
    handler: Handler


class Whole(Protocol):
    """A POST that came whole, and who sent it."""

    path: str
    headers: RawHeaders
    body: bytes
    gone: bool
    """Whether nobody waits for the answer any more; what works on it is cancelled then."""

    async def write(self, reply: Reply) -> None:
        """Answer it."""


class DirectRoutes:
    """What else happens around every request that a route of `find` answers; one task of the event loop each."""

    def __init__(self, find: Callable[[str], Route | None], *, gate: Gate, ledger: Ledger) -> None:
        self._find = find
        self._gate = gate
        self._ledger = ledger
        self._serving: Serving

    def begin(self, serving: Serving) -> None:
        """From now on the handlers are given this."""
        self._serving = serving

    def find(self, path: str) -> Route | None:
        """Who answers here, if anybody."""
        return self._find(path)

    @property
    def max_body_bytes(self) -> int:
        """The longest body that is answered here."""
        return self._serving.settings.max_body_bytes

    async def answer(self, route: Route, whole: Whole) -> None:
        """Answer a request, and write down what happened."""
        record = self._ledger.begin(whole.path, whole.headers)
        CURRENT.set(record)
        try:
            reply = await self._reply(route.handler, whole, record)
            record.status = reply.status
            reply.headers += self._ledger.headers_of(record, whole.path)
            await whole.write(reply)
        finally:
            self._ledger.end(record, method=METHOD, path=whole.path, route=route.template)

    async def _reply(self, handler: Handler, whole: Whole, record: RequestRecord) -> Reply:
        try:
            if whole.gone:
                raise ClientGoneError(LEFT)
            return await self._handle(handler, whole, record)
        except ServiceError as error:
            return self._refuse(error, record)
        except asyncio.CancelledError:
            return self._refuse(ClientGoneError(LEFT), record) if whole.gone else stopping(record.request_id)
        except Exception:
            log.exception("request %s failed", record.request_id)
            return unexpected(record.request_id)

    async def _handle(self, handler: Handler, whole: Whole, record: RequestRecord) -> Reply:
        bucket = self._gate.admit(whole.path, whole.headers, record.request_id)
        serving = self._serving
        with serving.drain.admitted():
            now_s = asyncio.get_running_loop().time()
            deadline = read_deadline(header(whole.headers, TIMEOUT), now_s, serving.settings.request_timeout_s)
            asked = Asked(headers=whole.headers, body=whole.body, deadline=deadline, record=record, bucket=bucket)
            return await handler(serving, asked)

    def _refuse(self, error: ServiceError, record: RequestRecord) -> Reply:
        reason = rejection(error, METHOD)
        if reason is not None:
            self._serving.metrics.on_rejection(reason)
        return refusal(error, record.request_id)
