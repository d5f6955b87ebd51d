"""How are the parts put together into one ASGI app, and which status does each error get?

The only place where an error meets a status code.
"""

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from service import access
from service.asking import TIMEOUT_HEADER
from service.bundles import OpenEngine
from service.counted import Rejection
from service.direct import DirectRoutes
from service.draining import Drain
from service.errors import (
    STOPPING,
    BodyTooLargeError,
    ClientGoneError,
    DrainingError,
    EngineError,
    ForbiddenError,
    LoadError,
    MalformedError,
    NotEnabledError,
    NotReadyError,
    OverloadError,
    QueueFullError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceError,
    TooLongError,
    TooManyError,
    UnauthenticatedError,
    UnknownVariantError,
)
from service.gate import Gate
from service.headers import headers_by_path
from service.keys import KeyRing, read_keys
from service.loading import Loader
from service.metrics import Metrics
from service.middleware import METHODS, OTHER_METHOD, UNMATCHED, RequestEnvelope, Tracer
from service.oip.tensors import HEADER
from service.openapi import describe
from service.rates import read_rate
from service.routes import admin, compare, health, metrics, models, page, predict, reach, v2
from service.routes.metrics import Gather, own_numbers
from service.schemas import ErrorAnswer
from service.serving import Serving
from service.settings import Settings
from service.variants import Catalog, load_catalog, open_engine_with
from sparsebert import __version__

log = logging.getLogger(__name__)

ERROR_STATUS: dict[type[ServiceError], int] = {
    MalformedError: 400,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    NotEnabledError: 403,
    UnknownVariantError: 404,
    LoadError: 409,
    BodyTooLargeError: 413,
    TooLongError: 422,
    TooManyError: 422,
    QueueFullError: 429,
    RateLimitedError: 429,
    ClientGoneError: 499,
    EngineError: 500,
    NotReadyError: 503,
    DrainingError: 503,
    RequestTimeoutError: 504,
}
REJECTIONS: dict[type[ServiceError], Rejection] = {
    QueueFullError: Rejection.QUEUE_FULL,
    RateLimitedError: Rejection.RATE_LIMITED,
    RequestTimeoutError: Rejection.DEADLINE,
    BodyTooLargeError: Rejection.BODY_TOO_LARGE,
    DrainingError: Rejection.DRAINING,
    NotReadyError: Rejection.NOT_READY,
}
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
PATHS = (
    ("POST", "/v1/predict"), ("POST", "/v1/compare"), ("GET", "/v1/models"), ("GET", "/healthz"), ("GET", "/readyz"),
    ("GET", "/metrics"), ("GET", "/"), ("GET", "/docs"), ("GET", "/docs/{asset}"), ("GET", "/openapi.json"),
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
) -> FastAPI:
    """The ASGI app; loads the bundles when it starts, unless `catalog` holds them already, and the keys now likewise.

    `gather` tells the numbers of `/metrics` where this process is not all of the service.

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
    frameworks_own = app.build_middleware_stack
    around = partial(_around, settings=settings, keys=keys, measured=measured, tracer=tracer)
    app.build_middleware_stack = lambda: around(frameworks_own())  # type: ignore[method-assign]
    app.add_exception_handler(Exception, _on_exception)
    app.add_exception_handler(ServiceError, _on_service_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type]
    limited = bool(settings.rate_limit) or any(key.rate_limit for key in keys.keys)
    app.openapi = cache(partial(describe, app, keys=bool(keys.keys), limited=limited))  # type: ignore[method-assign]
    return app


def _around(
    frameworks_own: ASGIApp, *, settings: Settings, keys: KeyRing, measured: Metrics, tracer: Tracer | None
) -> ASGIApp:
    """Ours around the framework's own layers, of which the routes that are asked all day need none."""
    inside: ASGIApp = DirectRoutes(frameworks_own, routes=direct_routes(), refuse=_on_service_error)
    rate = read_rate(settings.rate_limit) if settings.rate_limit else None
    inside = Gate(inside, ring=keys, rate=rate, refuse=_on_service_error, routes=all_routes(), clock_s=time.monotonic)
    if settings.cors_origins:
        inside = CORSMiddleware(
            inside,
            allow_origins=settings.cors_origins,
            allow_methods=METHODS,
            allow_headers=CORS_SENT,
            expose_headers=CORS_READ,
        )
    return RequestEnvelope(
        inside,
        metrics=measured,
        paths=PATHS,
        headers=headers_by_path(page.CONTENT),
        fail=_unexpected,
        stop=_stopping,
        clock_s=time.monotonic,
        tracer=tracer,
        access=access.write if settings.access_log else None,
    )


async def _on_service_error(request: Request, error: ServiceError) -> Response:
    status = ERROR_STATUS[type(error)]
    # A probe of health that is told "not ready" is no refused request.
    if type(error) in REJECTIONS and (request.method == "POST" or isinstance(error, RateLimitedError)):
        reach.serving(request).metrics.on_rejection(REJECTIONS[type(error)])
    if status == 500:
        log.error("request %s failed", request.state.request_id, exc_info=error)
        return _unexpected(request.state.request_id)
    headers = {}
    if status in (429, 503) and isinstance(error, OverloadError):
        headers["Retry-After"] = str(error.retry_after_s)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _refusal(status, str(error), request.state.request_id, headers)


async def _on_exception(request: Request, error: Exception) -> Response:
    """What nobody expected; the framework raises it again, and the envelope logs it."""
    del error
    return _unexpected(request.state.request_id)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    """What Starlette itself refuses: an unknown path or a method that a path does not have."""
    path = request.url.path
    sentence = {
        404: f"there is no path {path!r}; GET /docs lists them all",
        405: f"{path} does not answer {request.method}; it answers {(error.headers or {}).get('Allow', 'others')}",
    }.get(error.status_code, str(error.detail))
    return _refusal(error.status_code, sentence, request.state.request_id, error.headers)


def _unexpected(request_id: str) -> Response:
    """Tells nothing of the exception: that is in the log, under the same id."""
    return _refusal(500, "the service failed on this request; its log tells more under the request id", request_id)


def _stopping(request_id: str) -> Response:
    headers = {"Retry-After": str(DrainingError.retry_after_s)}
    return _refusal(ERROR_STATUS[DrainingError], STOPPING, request_id, headers)


def _refusal(status: int, sentence: str, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    return reach.json(ErrorAnswer(error=sentence, request_id=request_id), status=status, headers=headers)


def load_keys(settings: Settings) -> KeyRing:
    """The keys that the settings name. Raises ConfigError."""
    return read_keys(Path(settings.api_keys)) if settings.api_keys else KeyRing()


def all_routes() -> list[BaseRoute]:
    """Every route."""
    return [route for router in ROUTERS for route in router.routes]


def direct_routes() -> list[APIRoute]:
    """The routes that are asked all day."""
    return [route for one in (predict.router, compare.router) for route in one.routes if isinstance(route, APIRoute)]


def label_sets() -> list[tuple[str, str]]:
    """Method and route of every HTTP metric."""
    return [*PATHS, *((method, UNMATCHED) for method in (*METHODS, OTHER_METHOD))]


def statuses() -> list[int]:
    """Every status that the service answers with."""
    return sorted({200, 405, *ERROR_STATUS.values()})
