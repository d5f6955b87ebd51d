"""Who is let in where, and how often?

    path                                     who
    OPEN, and below `/docs/`                 everybody
    below `/v1/admin` and ADMIN_PREFIXES     admin keys; nobody where the service has none
    all others                               all keys; everybody where the service has none

Stands before everything that reads a request. Knows nothing about models.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from fastapi import Request, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service import keys
from service.errors import ForbiddenError, NotEnabledError, RateLimitedError, ServiceError, UnauthenticatedError
from service.exchange import RawHeaders
from service.keys import Key, KeyRing
from service.limits import InForce, renew
from service.rates import Bucket, Rate

log = logging.getLogger(__name__)

# Probes, scrapers and browsers that have no key yet; none of these tells a text or takes the model's time.
OPEN = frozenset(
    ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics", "/", "/docs", "/openapi.json")
)
OPEN_PREFIX = "/docs/"
ADMIN_PREFIXES = ("/v1/admin", "/v2/repository/models")
KEY_HEADER, BEARER_HEADER, BEARER = b"x-api-key", b"authorization", b"bearer "
BUCKET = "bucket"

Refuse = Callable[[Request, ServiceError], Awaitable[Response]]


class Gate:
    """Without keys and limits it looks at the path and nothing else. Use it from the event loop."""

    def __init__(self, *, ring: KeyRing, rate: Rate | None, clock_s: Callable[[], float]) -> None:
        self._rate = rate
        self._make_bucket = partial(Bucket, clock_s=clock_s)
        self._in_force = InForce()
        self.renew(ring)

    def renew(self, ring: KeyRing) -> None:
        """From the next request on these keys are in force; who was let in before is not asked again."""
        self._in_force = renew(self._in_force, ring, self._rate, self._make_bucket)

    @property
    def ring(self) -> KeyRing:
        """The keys in force."""
        return self._in_force.ring

    @property
    def limits(self) -> bool:
        """Whether anybody may be told to come back later."""
        return bool(self._in_force.buckets)

    def admit(self, path: str, headers: RawHeaders, request_id: str) -> Bucket | None:
        """Let a request in, or raise what it is refused with; from whose limit its texts are taken, if any."""
        admin = is_admin(path)
        ring, buckets = self._in_force.ring, self._in_force.buckets
        if not admin and (not (ring.keys or buckets) or is_open(path)):
            return None
        if admin and not ring.has_admin:
            raise NotEnabledError(
                "loading and unloading over HTTP is not enabled; add an admin key to the file of --api-keys with "
                "`sparsebert key`"
            )
        name = ""
        if ring.keys:
            key = self._identify(headers)
            name = key.name
            if admin:
                self._check_admin(key, request_id)
        bucket = buckets.get(name)
        if bucket is not None:
            self._limit(bucket)
        return bucket

    def _identify(self, headers: RawHeaders) -> Key:
        sent = sent_key(headers)
        if sent is None:
            raise UnauthenticatedError(
                "a key is needed; send it in the header Authorization: Bearer KEY, or in X-API-Key"
            )
        key = self._in_force.ring.find(sent)
        if key is None:
            raise UnauthenticatedError("the key is none of this service; ask whoever runs it for one")
        return key

    def _check_admin(self, key: Key, request_id: str) -> None:
        if key.scope is not keys.Scope.ADMIN:
            raise ForbiddenError("this is for admin keys, and the key is a user's; send an admin key")
        log.info("request %s comes with the admin key %s", request_id, key.name)

    def _limit(self, bucket: Bucket) -> None:
        wait_s = bucket.enter()
        if wait_s:
            raise RateLimitedError("the rate limit is used up; send fewer texts in a time", math.ceil(wait_s))


class GateLayer:
    """ASGI middleware. `routes` are those of the app: who is refused is counted under the one it would have reached."""

    def __init__(self, app: ASGIApp, *, gate: Gate, refuse: Refuse, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._gate = gate
        self._refuse = refuse
        self._routes = tuple(routes)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            try:
                state = scope["state"]
                state[BUCKET] = self._gate.admit(scope["path"], scope["headers"], state["request_id"])
            except ServiceError as error:
                return self._answer(error, scope, receive, send)
        return self._app(scope, receive, send)

    async def _answer(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = next((route for route in self._routes if route.matches(scope)[0] is Match.FULL), None)
        response = await self._refuse(Request(scope, receive, send), error)
        await response(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN or path.startswith(OPEN_PREFIX)


def is_admin(path: str) -> bool:
    """Whether a path needs an admin key."""
    return path.startswith(ADMIN_PREFIXES)


def sent_key(headers: RawHeaders) -> bytes | None:
    """The key that a request carries. X-API-Key goes first: proxies put tokens of their own into Authorization."""
    bearer = None
    for name, value in headers:
        if name == KEY_HEADER:
            return bytes(value).strip()
        if name == BEARER_HEADER and value[: len(BEARER)].lower() == BEARER:
            bearer = bytes(value[len(BEARER) :]).strip()
    return bearer
