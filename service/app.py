"""How are the parts put together into one ASGI app?"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from service import access
from service.asking import TIMEOUT_HEADER
from service.bundles import OpenEngine
from service.catalog import Catalog
from service.direct import DirectRoutes, Route
from service.draining import Drain
from service.errors import ServiceError
from service.gate import Gate, GateLayer
from service.headers import headers_by_path
from service.holding import LARGEST_BODIES, HeldBodies, Room
from service.keys import KeyRing, read_keys
from service.ledger import METHODS, OTHER_METHOD, UNMATCHED, Ledger, Tracer
from service.loading import Loader
from service.metrics import Metrics
from service.middleware import RequestEnvelope
from service.oip.tensors import HEADER
from service.openapi import describe
from service.opening import open_engine_with
from service.rates import read_rate
from service.refusing import ERROR_STATUS, refusal, refused, rejection, stopping, unexpected
from service.rereading import KeysFile
from service.routes import admin, compare, health, metrics, models, page, predict, reach, v2
from service.routes.metrics import Gather, own_numbers
from service.routes.v2 import infer
from service.serving import Serving
from service.settings import Settings
from service.variants import load_catalog
from sparsebert import __version__

# What pages of other origins may send and read, where --cors-origins lets them.
CORS_SENT = ("Authorization", "Content-Type", "X-API-Key", "X-Request-Id", TIMEOUT_HEADER, HEADER)
CORS_READ = ("Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-Id", HEADER)
ROUTERS = (
    predict.router,
    compare.router,
    models.router,
    health.router,
    metrics.router,
    page.router,
    admin.router,
    *v2.ROUTERS,
)
# What is answered past the framework when it comes whole.
DIRECT = {
    path: Route(template=path, handler=handler)
    for path, handler in (("/v1/predict", predict.answer), ("/v1/compare", compare.answer))
}
PATHS = (
    ("POST", "/v1/predict"), ("POST", "/v1/compare"), ("GET", "/v1/models"), ("GET", "/healthz"), ("GET", "/readyz"),
    ("HEAD", "/healthz"), ("HEAD", "/readyz"), ("GET", "/metrics"), ("GET", "/"), ("HEAD", "/"), ("GET", "/docs"),
    ("GET", "/docs/{asset}"), ("GET", "/openapi.json"),
    *admin.PATHS, *v2.PATHS,
)  # fmt: skip


def create_app(
    settings: Settings,
    catalog: Catalog | None = None,
    drain: Drain | None = None,
    ring: KeyRing | None = None,
    tracer: Tracer | None = None,
    open_engine: OpenEngine | None = None,
    loader_kind: type[Loader] = Loader,
    gather: Gather | None = None,
    num_asked: Callable[[], int] = lambda: 0,
) -> FastAPI:
    """The ASGI app; loads the bundles when it starts, unless `catalog` holds them already, and the keys now likewise.

    `gather` tells the numbers of `/metrics` where this process is not all of the service, and `num_asked` how often in
    all the keys were asked to be read again.

    Keep no reference to `catalog` where variants are to be unloaded: it holds them. Raises ConfigError for a bad keys
    file.
    """
    keys = ring or load_keys(settings)
    measured = Metrics(label_sets(), statuses())
    draining = drain or Drain(settings.drain_timeout_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal catalog
        opener = open_engine or open_engine_with(settings)
        catalog = catalog or load_catalog(settings, opener, time.monotonic)
        serving = Serving(settings, catalog, measured, draining, time.monotonic)
        catalog = None
        serving.start()
        loader = loader_kind(serving, opener)
        app.state.serving, app.state.loader = serving, loader
        app.state.direct.begin(serving)
        app.state.gather = gather or partial(own_numbers, serving)
        yield
        await loader.close()
        await serving.close()

    app = FastAPI(
        title="SparseBERT",
        version=__version__,
        description="Text classification with dense and sparse variants of a model, side by side.",
        lifespan=lifespan,
        # Its own would see but a part of the requests, and look at the environment for each.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        # It would be led to http behind a proxy that speaks TLS.
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    for router in ROUTERS:
        app.include_router(router)
    rate = read_rate(settings.rate_limit) if settings.rate_limit else None
    gate = Gate(ring=keys, rate=rate, clock_s=time.monotonic)
    ledger = Ledger(
        metrics=measured,
        paths=PATHS,
        headers=headers_by_path(page.CONTENT),
        clock_s=time.monotonic,
        tracer=tracer,
        access=access.write if settings.access_log else None,
    )
    app.state.direct = DirectRoutes(find_direct, gate=gate, ledger=ledger)
    frameworks_own = app.build_middleware_stack
    room = Room(LARGEST_BODIES * settings.max_body_bytes)
    around = partial(_around, gate=gate, ledger=ledger, room=room, cors_origins=settings.cors_origins)
    app.build_middleware_stack = lambda: around(frameworks_own())  # type: ignore[method-assign]
    app.add_exception_handler(Exception, _on_exception)
    app.add_exception_handler(ServiceError, _on_service_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type]
    app.state.keys_file = _keys_file(settings, gate, measured, num_asked) if settings.api_keys else None
    described = cache(partial(describe, app))
    app.openapi = lambda: described(keys=bool(gate.ring.keys), limited=gate.limits)  # type: ignore[method-assign]
    return app


def _keys_file(settings: Settings, gate: Gate, measured: Metrics, num_asked: Callable[[], int]) -> KeysFile:
    return KeysFile(
        Path(settings.api_keys),
        read_keys,
        gate=gate,
        metrics=measured.keys,
        num_asked=num_asked,
        clock_s=time.monotonic,
        wall_clock_s=time.time,
    )


def _around(frameworks_own: ASGIApp, *, gate: Gate, ledger: Ledger, room: Room, cors_origins: Sequence[str]) -> ASGIApp:
    """Ours around the framework's own layers."""
    held = HeldBodies(frameworks_own, room)
    inside: ASGIApp = GateLayer(held, gate=gate, refuse=_on_service_error, routes=all_routes())
    if cors_origins:
        inside = CORSMiddleware(
            inside,
            allow_origins=cors_origins,
            allow_methods=METHODS,
            allow_headers=CORS_SENT,
            expose_headers=CORS_READ,
        )
    fail, stop = (
        (lambda request_id: reach.response(unexpected(request_id))),
        (lambda request_id: reach.response(stopping(request_id))),
    )
    return RequestEnvelope(inside, ledger=ledger, fail=fail, stop=stop)


async def _on_service_error(request: Request, error: ServiceError) -> Response:
    reason = rejection(error, request.method)
    if reason is not None:
        reach.serving(request).metrics.on_rejection(reason)
    return reach.response(refusal(error, request.state.request_id))


async def _on_exception(request: Request, error: Exception) -> Response:
    """What nobody expected; the framework raises it again, and the envelope logs it."""
    del error
    return reach.response(unexpected(request.state.request_id))


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    """What Starlette itself refuses: an unknown path or a method that a path does not have."""
    path = request.url.path
    sentence = {
        404: f"there is no path {path!r}; GET /docs lists them all",
        405: f"{path} does not answer {request.method}; it answers {(error.headers or {}).get('Allow', 'others')}",
    }.get(error.status_code, str(error.detail))
    return reach.response(refused(error.status_code, sentence, request.state.request_id, error.headers))


def load_keys(settings: Settings, wall_clock_s: Callable[[], float] = time.time) -> KeyRing:
    """The keys that the settings name. Raises ConfigError."""
    if not settings.api_keys:
        return KeyRing()
    begun_s = wall_clock_s()
    return replace(read_keys(Path(settings.api_keys)), read_at_s=begun_s)


def all_routes() -> list[BaseRoute]:
    """Every route."""
    return [route for router in ROUTERS for route in router.routes]


def find_direct(path: str) -> Route | None:
    """Who answers a whole POST to this path past the framework, if anybody."""
    return DIRECT.get(path) or infer.find_direct(path)


def label_sets() -> list[tuple[str, str]]:
    """Method and route of every HTTP metric."""
    return [*PATHS, *((method, UNMATCHED) for method in (*METHODS, OTHER_METHOD))]


def statuses() -> list[int]:
    """Every status that the service answers with."""
    return sorted({200, 405, *ERROR_STATUS.values()})
