"""`sparsebert serve`: how is the service started and stopped from a command line?

Knows nothing about routes or models.
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from service.app import create_app, load_keys
from service.bundles import LoadedBundle, OpenEngine
from service.catalog import Catalog
from service.cluster.words import FLAG, asks_for_cluster, lone_flags
from service.connections import GRACE_S, BoundedProtocol, cut_off_late
from service.draining import Drain
from service.errors import NotReadyError
from service.hangups import Hangups, on_hangup
from service.keys import KeyRing
from service.memory import keep_from_collection
from service.onnx_engine import RUNTIME_VERSION
from service.opening import device_of, open_engine_with
from service.settings import Settings, read_settings
from service.variants import load_catalog
from sparsebert.errors import BundleError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    from service.tracing import OtelTracer

log = logging.getLogger(__name__)

BACKLOG = 2048
TICKS_A_SECOND = 10
OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# A batch that was stopped ends within one node of its graph.
JOIN_S = 5.0
LISTEN_CURES = {
    errno.EADDRINUSE: "stop what listens there or choose another --port",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose another --host (0.0.0.0 listens on all)",
    errno.EACCES: "this user may not; choose a --port from 1024 on, or give the process CAP_NET_BIND_SERVICE",
}


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError or BundleError when it cannot start."""
    if asks_for_cluster(arguments, os.environ):
        from service.cluster import cli as cluster  # brings all that a replica needs

        cluster.main(arguments, os.environ)
        return
    if lone := lone_flags(arguments):
        raise ConfigError(f"{lone[0]} is of a cluster; add {FLAG}, or leave it out")
    settings = read_settings(arguments, os.environ)
    set_up_logs(settings)
    # Its own threads would take the cores from the workers, and cost more than they give for texts of a request.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if settings.dry_run:
        _dry_run(settings)
    else:
        serve(settings, open_engine_with(settings))


def serve(settings: Settings, open_engine: OpenEngine) -> None:
    """Load all, listen, and answer until a signal, or until what computes died for good."""
    # Until the server listens to signals itself: as process 1 of a container it would not hear this one at all.
    signal.signal(signal.SIGTERM, _end)
    hangups = Hangups()
    if settings.api_keys:
        on_hangup(hangups)
    ring, tracer = load_keys(settings), open_tracer(settings, os.environ)
    # First, so that a taken port is told at once. It listens when all is loaded: until then connections are
    # refused, and a probe does not hang.
    listener = bind(settings.host, settings.port)
    try:
        drain = Drain(settings.drain_timeout_s)
        app = _load_app(settings, open_engine, listener, drain, ring, tracer, lambda: hangups.num)
        keys_file = app.state.keys_file
        server = DrainingServer(
            server_config(app),
            drain,
            end_requests=lambda: app.state.serving.close(),
            died=lambda: app.state.serving.workers.dead,
            follow=lambda: keys_file.follow() if keys_file else None,
            patience_s=settings.request_timeout_s + GRACE_S,
        )
        keep_from_collection()
        server.run(sockets=[listener])
        app.state.serving.workers.join(JOIN_S)
        app.state.loader.join(JOIN_S)
        if app.state.serving.workers.dead:
            raise NotReadyError("workers died again and again; the log says of what")
    finally:
        listener.close()
        if tracer is not None:
            tracer.close()
    log.info("stopped")


def server_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app,
        http=partial(BoundedProtocol, direct=app.state.direct),  # type: ignore[arg-type]
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


def set_up_logs(settings: Settings) -> None:
    """What is written, and how."""
    root = logging.getLogger()
    root.setLevel(settings.log_level.upper())
    if settings.log_format == "json":
        from service.logs import json_formatter  # costs 20 MB where it finds rich

        for handler in root.handlers:
            handler.setFormatter(json_formatter())


def open_tracer(settings: Settings, environment: Mapping[str, str]) -> "OtelTracer | None":
    """What traces requests, when it is asked for. Raises MissingExtraError."""
    named = any(environment.get(name) for name in OTLP_VARIABLES)
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or not (settings.otlp_endpoint or named):
        return None
    try:
        from service import tracing
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--otlp-endpoint or {OTLP_VARIABLES[0]} asks for traces, which need: pip install 'sparsebert[otel]' "
            f"(the package {error.name!r} is missing)"
        ) from error
    return tracing.OtelTracer(tracing.sending_to(settings.otlp_endpoint), environment, time.time_ns)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    log.info("stopping on %s: nothing serves yet", signal.Signals(number).name)
    sys.exit(0)


class DrainingServer(uvicorn.Server):
    """Keeps listening after the first signal until requests in flight are done, so that readiness can be asked.

    Ends by itself when what computes has died for good: whoever started it starts it again. Clients that let it wait
    for more than `patience_s` are cut off. Calls `follow` ten times a second.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        *,
        end_requests: Callable[[], Awaitable[None]],
        died: Callable[[], bool],
        follow: Callable[[], None],
        patience_s: float,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._end_requests = end_requests
        self._died = died
        self._follow = follow
        self._patience_s = patience_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del frame
        if self._drain.draining:
            self.should_exit = True
        else:
            # A signal may be handled in the midst of a request, of which the line is none.
            told = "stopping on %s: %d requests in flight", signal.Signals(sig).name, self._drain.num_inflight
            Context().run(log.info, *told)
        self._drain.begin(time.monotonic())

    async def on_tick(self, counter: int) -> bool:
        now_s = time.monotonic()
        self._follow()
        if self._drain.is_late(now_s):
            await self._end_requests()  # each waiting request is told so, in the ticks that are left
        if self._drain.is_over(now_s) or self._died():
            self.should_exit = True
        if counter % TICKS_A_SECOND == 0:
            cut_off_late(self.server_state.connections, asyncio.get_running_loop().time(), self._patience_s)
        return await super().on_tick(counter)


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address and does not listen yet. Raises ConfigError when it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host is {host!r}, which is no address of this machine ({error.strerror})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise unusable(host, port, error) from error
    listener.setblocking(False)
    return listener


def listen(listener: socket.socket, host: str, port: int) -> None:
    """Take connections. Raises ConfigError when another process began to listen there meanwhile."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise unusable(host, port, error) from error


def unusable(host: str, port: int, error: OSError) -> ConfigError:
    """Why an address cannot be listened on, and the cure of that."""
    cure = LISTEN_CURES.get(error.errno or 0, "choose another --host or --port")
    return ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); {cure}")


def _load_app(
    settings: Settings,
    open_engine: OpenEngine,
    listener: socket.socket,
    drain: Drain,
    ring: KeyRing,
    tracer: "OtelTracer | None",
    num_asked: Callable[[], int],
) -> FastAPI:
    """The app, which alone holds the bundles: they must leave when they are unloaded."""
    catalog = load_catalog(settings, open_engine, time.monotonic)
    listen(listener, settings.host, settings.port)
    _announce(settings, catalog, listener.getsockname()[1])
    return create_app(settings, catalog, drain, ring, tracer, open_engine, num_asked=num_asked)


def _announce(settings: Settings, catalog: Catalog, port: int) -> None:
    for row in table(catalog):
        log.info(row)
    log.info(_computes(settings))
    address = f"http://{settings.host}:{port}"
    log.info("serving on %s/ (API %s/docs, metrics %s/metrics)", address, address, address)


def _dry_run(settings: Settings) -> None:
    load_keys(settings)
    catalog = load_catalog(settings, open_engine_with(settings), time.monotonic)
    sys.stdout.write("\n".join(table(catalog)) + f"\n{_computes(settings)}\n")
    if catalog.failed:
        raise BundleError(
            f"{len(catalog.failed)} of {len(catalog.names)} variants failed, the first because: "
            f"{catalog.failed[0].error}"
        )


def _computes(settings: Settings) -> str:
    device = device_of(settings)
    return f"computed by ONNX Runtime {RUNTIME_VERSION} on {device} ({device.provider})"


def table(catalog: Catalog) -> list[str]:
    """One line for each variant."""
    width = max(len(str(name)) for name in catalog.names)
    rows = {bundle.name: f"failed  {bundle.error}" for bundle in catalog.failed}
    for bundle in catalog.loaded:
        size = bundle.manifest.size
        rows[bundle.name] = (
            f"ready   {bundle.manifest.precision}  {size.parameters / 1e6:6.1f} M parameters  "
            f"{size.encoder_sparsity:4.0%} sparse  file {bundle.file_bytes / 1e6:6.1f} MB  "
            f"memory {bundle.memory_bytes / 1e6:6.1f} MB  {_beside(bundle)}loaded in {bundle.load_s:.2f} s"
        )
    return [f"{'*' if name == catalog.default else ' '} {name!s:<{width}}  {rows[name]}" for name in catalog.names]


def _beside(bundle: LoadedBundle) -> str:
    """What there is to say of a device beside the CPU."""
    gpu = "" if bundle.gpu_memory_bytes is None else f"on the GPU {bundle.gpu_memory_bytes / 1e6:6.1f} MB  "
    return gpu + (f"{bundle.engine.nodes_on_cpu} nodes on the CPU  " if bundle.engine.nodes_on_cpu else "")
