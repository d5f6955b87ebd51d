"""What do all routes share while the service runs: the variants with their batchers, and how each one fares?

What serves changes in one step of the event loop: a request that found a variant ends on it, the next one finds
another. Knows nothing about HTTP, nor how bundles are opened.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from service.batcher import Batcher
from service.bundles import LoadedBundle
from service.catalog import Catalog, FailedBundle
from service.counted import Outcome, VariantFacts
from service.deadlines import Deadline
from service.devices import max_items
from service.draining import Drain
from service.errors import (
    STOPPING,
    ClientGoneError,
    DrainingError,
    NotReadyError,
    OverloadError,
    RequestError,
    RequestTimeoutError,
    UnknownVariantError,
)
from service.gpus import GpuMemory
from service.leases import Lease
from service.memory import Leaving
from service.metrics import Metrics
from service.onnx_engine import RUNTIME_VERSION
from service.opening import device_of, num_workers
from service.probabilities import softmax
from service.routing import VariantName, choose_model, choose_variant
from service.settings import Settings
from service.tokenizing import TokenizingThreads
from service.variant_metrics import VariantMetrics
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
    lease: Lease = field(default_factory=Lease)

    @property
    def name(self) -> VariantName:
        return self.bundle.name

    def begin(self) -> float:
        """One request to this variant, which is there until it ends; call `end` once with what this returns."""
        self.lease.take()
        self.metrics.on_begin()
        return self.clock_s()

    def end(self, began_s: float, outcome: Outcome = Outcome.OK) -> None:
        """The request ended."""
        self.metrics.on_end(outcome, began_s=began_s, ended_s=self.clock_s())
        self.lease.give_back()


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
        self.tokenizing = TokenizingThreads(settings.max_queue_items)
        # Told also when nothing is loaded any more: then it shows what was given back.
        self._gpu: GpuMemory | None = None
        self.variants = {bundle.name: self._serve(bundle) for bundle in catalog.loaded}
        self._former: list[ServingVariant] = []
        self._stopped = False
        # Told by whoever loads.
        self.loading: set[VariantName] = set()
        metrics.set_queue_limits(settings.max_queue_items, settings.max_queue_tokens)
        for name in self.failures:
            metrics.add_failed(name)

    def start(self) -> None:
        """Begin to take work."""
        self.workers.start()
        for variant in self.variants.values():
            variant.batcher.start()

    async def close(self) -> None:
        """Stop; whatever still waits is told so."""
        self._stopped = True
        self.workers.close()
        for variant in (*self.variants.values(), *self._former):
            variant.batcher.close()
        self.tokenizing.close()

    @property
    def failures(self) -> dict[VariantName, str]:
        """Why a variant that the service was started with does not serve."""
        catalog = self.catalog
        return {
            name: error
            for name, error in catalog.errors.items()
            if name not in self.variants and name not in catalog.unloaded
        }

    def find(self, model: str | None, variant: str | None) -> ServingVariant:
        """The variant asked for; use it before anything is awaited, or hold its lease.

        Raises UnknownVariantError, also for one that is not loaded, or NotReadyError when it cannot serve.
        """
        name = choose_variant(model, variant, self.catalog.defaults, self.catalog.names)
        found = self.variants.get(name)
        if found is None:
            raise self._missing(name)
        return found

    def _missing(self, name: VariantName) -> UnknownVariantError | NotReadyError:
        if name in self.catalog.unloaded:
            there = ", ".join(str(one) for one in sorted(self.variants)) or "none"
            return UnknownVariantError(f"variant {name} is not loaded; load it, or ask for one that is: {there}")
        return NotReadyError(f"variant {name} did not load: {self.catalog.errors[name]}")

    def swap_in(self, bundle: LoadedBundle) -> ServingVariant | None:
        """From now on requests go to this bundle; what runs on the former one, which is returned, ends there."""
        former = self.variants.get(bundle.name)
        variant = self._serve(bundle)
        variant.batcher.start()
        self.variants = {**self.variants, bundle.name: variant}
        self.catalog = self.catalog.with_loaded(bundle)
        if former is not None:
            self._former.append(former)
        return former

    def swap_out(self, name: VariantName) -> ServingVariant | None:
        """From now on no request gets to this variant; what runs on it, which is returned, ends there."""
        former = self.variants.get(name)
        self.variants = {one: variant for one, variant in self.variants.items() if one != name}
        self.catalog = self.catalog.with_unloaded(name)
        self.metrics.remove_variant(name)
        if former is not None:
            self._former.append(former)
        return former

    def note(self, failed: FailedBundle) -> None:
        """A load failed; nothing else changes."""
        self.catalog = self.catalog.with_failed(failed)

    def former_of(self, name: VariantName) -> list[ServingVariant]:
        """What was swapped out and may still be used."""
        return [variant for variant in self._former if variant.name == name]

    def let_go(self, former: ServingVariant) -> Leaving:
        """Nobody uses it any more: end it, and tell what should leave memory now."""
        former.batcher.close()
        self._former.remove(former)
        # Its tokenizer may be that of another variant, too.
        return Leaving(former.bundle.engine, former.bundle)

    def ready_of(self, model: str | None) -> list[ServingVariant]:
        """The variants of a model that can serve, in alphabetical order. Raises UnknownVariantError."""
        wanted = choose_model(model, self.catalog.default, self.catalog.names)
        of_model = [variant for name, variant in sorted(self.variants.items()) if name.model == wanted]
        return [variant for variant in of_model if variant.batcher.alive]

    def too_few(self, model: str | None) -> OverloadError | UnknownVariantError:
        """Why fewer than two variants of a model are ready, when that is so. Raises UnknownVariantError."""
        if self.stopped:
            return DrainingError(STOPPING)
        wanted = choose_model(model, self.catalog.default, self.catalog.names)
        ready = ", ".join(one.name.variant for one in self.ready_of(model)) or "none"
        here = f"comparing needs two variants of {wanted} that are ready, here is {ready}"
        reasons = [
            *(
                f"{name} is being loaded"
                for name in sorted(self.loading - self.variants.keys())
                if name.model == wanted
            ),
            *(f"{name} did not load: {error}" for name, error in self.failures.items() if name.model == wanted),
            *self.unhealthy(),
        ]
        if reasons:
            return NotReadyError("; ".join((here, *reasons)))
        return UnknownVariantError(f"{here}; load another one, or send the texts to /v1/predict")

    @property
    def stopped(self) -> bool:
        """Whether nothing is computed any more because the service was told to end, and not because workers died."""
        return self._stopped and not self.workers.dead

    def unhealthy(self) -> list[str]:
        """A sentence for each variant that takes no work any more, though it should."""
        sentences = []
        for name, variant in self.variants.items():
            if not variant.batcher.alive and not self.stopped:
                sentences.append(f"the workers of {name} are dead; restart the service")
            elif variant.batcher.silence_s() > self.settings.request_timeout_s:
                sentences.append(
                    f"{name} has taken no work for {variant.batcher.silence_s():.0f} s; restart the service"
                )
        return sentences

    def not_ready(self) -> list[str]:
        """A sentence for each reason not to send requests here."""
        stopping = ["the service is stopping"] if self.drain.draining else []
        failed = [f"variant {name} did not load: {error}" for name, error in self.failures.items()]
        empty = [] if self.variants or failed else ["no variant is loaded; load one"]
        return stopping + self.unhealthy() + failed + empty

    def refresh_gauges(self) -> None:
        """Bring the gauges that nobody pushes up to date."""
        for name, variant in self.variants.items():
            batchers = [one.batcher for one in (variant, *self.former_of(name))]
            variant.metrics.set_queue(
                sum(one.num_queued for one in batchers), sum(one.queued_tokens for one in batchers)
            )
            variant.metrics.set_silence(variant.batcher.silence_s())
            self.metrics.set_ready(name, ready=variant.batcher.alive)
        self._refresh_gpu()

    def _refresh_gpu(self) -> None:
        if self._gpu is not None:
            use = self._gpu.used()
            self.metrics.set_gpu_memory(str(self.device), use.device_bytes if use else None, scope="device")
            self.metrics.set_gpu_memory(str(self.device), use.process_bytes if use else None, scope="process")

    def _serve(self, bundle: LoadedBundle) -> ServingVariant:
        manifest = bundle.manifest
        self._gpu = bundle.engine.gpu or self._gpu
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
            max_batch_items=self._max_items(manifest) if manifest.shares_batches else 1,
            max_queue_items=self.settings.max_queue_items,
            max_queue_tokens=self.settings.max_queue_tokens,
        )
        batcher = Batcher(
            str(bundle.name),
            bundle.engine,
            limits,
            pool=self.workers,
            clock_s=self.clock_s,
            observer=metrics,
            read=softmax,
        )
        return ServingVariant(bundle=bundle, batcher=batcher, metrics=metrics, clock_s=self.clock_s)

    def _max_items(self, manifest: Manifest) -> int:
        most = max_items(self.device, self.settings.max_batch_tokens, manifest.max_sequence_length)
        return min(most, self.settings.max_queue_items)


def outcome_of(error: BaseException, deadline: Deadline) -> Outcome:
    """How a request ended that raised `error` and had to be answered until `deadline`."""
    if isinstance(error, RequestError):
        return Outcome.INVALID
    if isinstance(error, RequestTimeoutError):
        return Outcome.IMPATIENT if deadline.of_request else Outcome.TIMEOUT
    if isinstance(error, OverloadError):
        return Outcome.REJECTED
    if isinstance(error, ClientGoneError | asyncio.CancelledError):
        return Outcome.CANCELLED
    return Outcome.ERROR
