"""What is one replica: the app with what it serves, and how is it asked how it fares?

Knows nothing about Ray.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app, load_keys
from service.cli import open_tracer, set_up_logs
from service.cluster.calling import Answered, Asked, answer, call, without_request_id
from service.cluster.forwarding import Ask, Forwarding
from service.cluster.gathering import labelled
from service.errors import NotEnabledError, NotReadyError
from service.loading import Loaded, Loader, Unloaded
from service.memory import keep_from_collection
from service.routes.metrics import Gather, own_numbers
from service.routing import VariantName
from service.serving import Serving
from service.settings import Settings
from sparsebert.errors import BundleError

if TYPE_CHECKING:
    from service.tracing import OtelTracer

ALL_TOGETHER = (
    "on a cluster all replicas change their bundles; bring the bundle into the models folder and run "
    "`sparsebert serve --ray` again"
)


class FixedLoader(Loader):
    """Changes nothing: one replica would serve something else than the others."""

    async def load(self, name: VariantName, deadline_s: float) -> Loaded:
        del name, deadline_s
        raise NotEnabledError(ALL_TOGETHER)

    async def unload(self, name: VariantName, deadline_s: float) -> Unloaded:
        del name, deadline_s
        raise NotEnabledError(ALL_TOGETHER)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Which version of each variant a replica serves."""

    deployment: str
    replica: str
    versions: dict[str, str]


class Replica:
    """Create it with `open`, inside the event loop."""

    def __init__(self, name: str, app: FastAPI, asgi: ASGIApp, tracer: "OtelTracer | None") -> None:
        self._name = name
        self._app = app
        self._asgi = asgi
        self._tracer = tracer
        self._lifespan = app.router.lifespan_context(app)

    @classmethod
    async def open(cls, settings: Settings, name: str, gather: Gather, asks: Mapping[str, Ask]) -> Self:
        """Load all; `asks` are the replicas that have a variant of their own.

        Raises ConfigError, BundleError, also when a single variant cannot be served: as long as this one does not
        start, those that serve a former bundle go on.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        set_up_logs(settings)
        ring, tracer = load_keys(settings), open_tracer(settings, os.environ)
        app = create_app(settings, ring=ring, tracer=tracer, loader_kind=FixedLoader, gather=gather)
        asgi: ASGIApp = app
        if asks:
            asgi = Forwarding(
                app,
                asks=asks,
                catalog=lambda: app.state.serving.catalog,
                ring=ring,
                max_bytes=settings.max_body_bytes,
                patience_s=settings.request_timeout_s,
            )
        replica = cls(name, app, asgi, tracer)
        await replica._lifespan.__aenter__()
        failures = replica._serving.failures
        if failures:
            await replica.close()
            raise BundleError("; ".join(f"{name} did not load: {error}" for name, error in failures.items()))
        keep_from_collection()
        return replica

    async def close(self) -> None:
        """Stop; whatever still waits is told so."""
        await self._lifespan.__aexit__(None, None, None)
        if self._tracer is not None:
            self._tracer.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that came through Ray's proxy."""
        await call(self._asgi, scope, receive, without_request_id(send))

    async def answer(self, asked: Asked) -> Answered:
        """A request that another replica hands on."""
        return await answer(self._app, asked)

    def check_health(self) -> None:
        """Raises NotReadyError when this replica should be replaced."""
        reasons = self._serving.unhealthy()
        if reasons:
            raise NotReadyError("; ".join(reasons))

    def told(self) -> Told:
        """What it serves now."""
        versions = {str(name): one.bundle.manifest.version for name, one in self._serving.variants.items()}
        return Told(deployment=self._name.split("#")[0], replica=self._name, versions=versions)

    async def numbers(self) -> bytes:
        """Its own metrics, which say that they are its own."""
        return labelled(await own_numbers(self._serving), self._name)

    @property
    def _serving(self) -> Serving:
        serving: Serving = self._app.state.serving
        return serving
