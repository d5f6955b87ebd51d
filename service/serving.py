"""What do all routes share while the service runs: the variants with their batchers, and how each one fares?

Knows nothing about HTTP.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from service.batcher import Batcher
from service.bundles import LoadedBundle
from service.devices import max_items
from service.draining import Drain
from service.engine import RUNTIME_VERSION
from service.errors import ClientGoneError, NotReadyError, OverloadError, RequestError, RequestTimeoutError
from service.metrics import Metrics, Outcome, VariantFacts, VariantMetrics
from service.routing import VariantName, choose_model, choose_variant
from service.settings import Settings
from service.variants import Catalog, device_of, num_workers
from service.waiting import BatchLimits
from service.workers import WorkerPool
from sparsebert.manifest import MODEL_FILE, Manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class ServingVariant:
    """A loaded bundle, the batcher that feeds it and the metrics that watch both."""

    bundle: LoadedBundle
    batcher: Batcher
    metrics: VariantMetrics
    clock_s: Callable[[], float]

    @property
    def name(self) -> VariantName:
        return self.bundle.name

    @contextmanager
    def counted(self) -> Iterator[None]:
        """The block is one request to this variant; its end is counted once."""
        began_s = self.clock_s()
        with self.metrics.inflight():
            try:
                yield
            except BaseException as error:
                self.metrics.on_end(outcome_of(error), began_s=began_s, ended_s=self.clock_s())
                raise
            self.metrics.on_end(Outcome.OK, began_s=began_s, ended_s=self.clock_s())


class Serving:
    """The running service; create it inside the event loop."""

    def __init__(
        self, settings: Settings, catalog: Catalog, metrics: Metrics, drain: Drain, clock_s: Callable[[], float]
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.metrics = metrics
        self.drain = drain
        self.clock_s = clock_s
        self.device = device_of(settings)
        self.workers = WorkerPool(num_workers(settings), clock_s)
        self.tokenizing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self.variants = {bundle.name: self._serve(bundle) for bundle in catalog.loaded}
        self.errors = {bundle.name: bundle.error for bundle in catalog.failed}
        for name in self.errors:
            metrics.add_failed(name)

    def start(self) -> None:
        """Begin to take work."""
        self.workers.start()
        for variant in self.variants.values():
            variant.batcher.start()

    async def close(self) -> None:
        """Stop; whatever still waits is told so."""
        self.workers.close()
        for variant in self.variants.values():
            variant.batcher.close()
        self.tokenizing.shutdown(wait=False, cancel_futures=True)

    def find(self, model: str | None, variant: str | None) -> ServingVariant:
        """The variant asked for. Raises UnknownVariantError, or NotReadyError when it cannot serve."""
        name = choose_variant(model, variant, self.catalog.default, self.catalog.names)
        if name in self.errors:
            raise NotReadyError(f"variant {name} did not load: {self.errors[name]}")
        return self.variants[name]

    def ready_of(self, model: str | None) -> list[ServingVariant]:
        """The variants of a model that can serve, in alphabetical order. Raises UnknownVariantError."""
        wanted = choose_model(model, self.catalog.default, self.catalog.names)
        of_model = [variant for name, variant in sorted(self.variants.items()) if name.model == wanted]
        return [variant for variant in of_model if variant.batcher.alive]

    def unhealthy(self) -> list[str]:
        """A sentence for each variant that takes no work any more."""
        sentences = []
        for name, variant in self.variants.items():
            if not variant.batcher.alive:
                sentences.append(f"the workers of {name} are dead; restart the service")
            elif variant.batcher.silence_s() > self.settings.request_timeout_s:
                sentences.append(
                    f"{name} has taken no work for {variant.batcher.silence_s():.0f} s; restart the service"
                )
        return sentences

    def not_ready(self) -> list[str]:
        """A sentence for each reason not to send requests here."""
        stopping = ["the service is stopping"] if self.drain.draining else []
        failed = [f"variant {name} did not load: {error}" for name, error in self.errors.items()]
        return stopping + self.unhealthy() + failed

    def refresh_gauges(self, unix_s: float) -> None:
        """Bring the gauges that nobody pushes up to date."""
        for name, variant in self.variants.items():
            variant.metrics.set_queue(variant.batcher.num_queued, variant.batcher.queued_tokens)
            variant.metrics.on_beat(unix_s - variant.batcher.silence_s())
            self.metrics.set_ready(name, ready=variant.batcher.alive)
        self._refresh_gpu()

    def _refresh_gpu(self) -> None:
        gpu = next((one.bundle.engine.gpu for one in self.variants.values() if one.bundle.engine.gpu), None)
        if gpu is not None:
            use = gpu.used()
            self.metrics.set_gpu_memory(str(self.device), use.device_bytes if use else None, scope="device")
            self.metrics.set_gpu_memory(str(self.device), use.process_bytes if use else None, scope="process")

    def _serve(self, bundle: LoadedBundle) -> ServingVariant:
        manifest = bundle.manifest
        facts = VariantFacts(
            name=bundle.name,
            version=manifest.version,
            precision=manifest.precision,
            provider=bundle.engine.provider,
            sha256=manifest.files[MODEL_FILE].sha256,
            ort=RUNTIME_VERSION,
            load_s=bundle.load_s,
            memory_bytes=bundle.memory_bytes,
            gpu_memory_bytes=bundle.gpu_memory_bytes,
            file_bytes=bundle.file_bytes,
        )
        metrics = self.metrics.add_variant(facts)
        limits = BatchLimits(
            max_batch_tokens=self.settings.max_batch_tokens,
            # Where an answer would depend on its batch-mates, a text has none.
            max_batch_items=self._max_items(manifest) if manifest.batch_invariant else 1,
            max_queue_items=self.settings.max_queue_items,
            max_queue_tokens=self.settings.max_queue_tokens,
        )
        batcher = Batcher(
            str(bundle.name), bundle.engine, limits, pool=self.workers, clock_s=self.clock_s, observer=metrics
        )
        return ServingVariant(bundle=bundle, batcher=batcher, metrics=metrics, clock_s=self.clock_s)

    def _max_items(self, manifest: Manifest) -> int:
        most = max_items(self.device, self.settings.max_batch_tokens, manifest.max_sequence_length)
        return min(most, self.settings.max_queue_items)


def outcome_of(error: BaseException) -> Outcome:
    """How a request ended that raised `error`."""
    if isinstance(error, RequestError):
        return Outcome.INVALID
    if isinstance(error, RequestTimeoutError):
        return Outcome.TIMEOUT
    if isinstance(error, OverloadError):
        return Outcome.REJECTED
    if isinstance(error, ClientGoneError | asyncio.CancelledError):
        return Outcome.CANCELLED
    return Outcome.ERROR
