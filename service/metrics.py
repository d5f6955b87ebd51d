"""What does the service count and time? The only file that imports prometheus_client.

Every label set exists from the start, and labels come from closed sets. Knows nothing about queues or HTTP.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from service.counted import Rejection, Side, VariantFacts, Verdict
from service.routing import VariantName
from service.variant_metrics import VariantMetrics

PREFIX = "sparsebert_"
SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.04, 0.065, 0.1, 0.16, 0.25, 0.5, 1, 2.5, 5,
)  # fmt: skip
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """All metrics of one service, in their own registry."""

    def __init__(self, routes: Iterable[tuple[str, str]], statuses: Sequence[int]) -> None:
        # A second series for each counter, which nobody asked for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of_variant, of_pair = ("model", "variant"), ("model", "baseline", "variant")
        self._http_requests = self._counter("http_requests", "HTTP requests answered.", ("method", "route", "status"))
        self._http_seconds = self._histogram(
            "http_request_duration_seconds", "Time to answer an HTTP request.", ("method", "route"), SECONDS
        )
        self.requests = self._counter(
            "inference_requests", "Requests to a variant, by how they ended.", (*of_variant, "version", "outcome")
        )
        self.request_seconds = self._histogram(
            "inference_request_duration_seconds",
            "Time from a request's arrival at a variant to its probabilities, of those that ended ok.",
            of_variant,
            SECONDS,
        )
        self.inputs = self._counter("inference_inputs", "Texts computed by the engine.", of_variant)
        self.executions = self._counter("inference_executions", "Batches computed by the engine.", of_variant)
        self.stage_seconds = self._histogram(
            "stage_duration_seconds", "Time of one stage of a request.", (*of_variant, "stage"), SECONDS
        )
        self.batch_size = self._histogram("batch_size", "Texts in a batch.", of_variant, SIZES)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens in a batch, with padding.", of_variant, TOKENS)
        self.tokens = self._counter("tokens", "Tokens given to the engine.", (*of_variant, "kind"))
        self.input_tokens = self._histogram("input_tokens", "Tokens of a text, before truncation.", (), TOKENS)
        self.truncated = self._counter("truncated_inputs", "Texts that were cut to fit the model.", of_variant)
        self.queue_depth = self._gauge("queue_depth", "Texts that wait now.", of_variant)
        self.queue_tokens = self._gauge("queue_tokens", "Tokens that wait now.", of_variant)
        self._queue_limit = self._gauge("queue_limit", "How much may wait for one variant.", ("kind",))
        self.inflight = self._gauge("inflight_requests", "Requests to a variant that are not answered yet.", of_variant)
        self._rejections = self._counter("rejections", "Requests refused, by reason.", ("reason",))
        self.silence = self._gauge(
            "batcher_silence_seconds", "Time since the batcher last could take work.", of_variant
        )
        self._ready = self._gauge("model_ready", "1 when the variant can answer, else 0.", of_variant)
        self._info = self._gauge(
            "model_info",
            "1; the labels say what is loaded.",
            (*of_variant, "version", "precision", "provider", "sha256", "ort"),
        )
        self._load_seconds = self._gauge(
            "model_load_duration_seconds", "Time to open and test the variant.", of_variant
        )
        self._memory = self._gauge(
            "model_memory_bytes",
            "Size of the variant: growth of the process and of the GPU's used memory at load, and its graph file.",
            (*of_variant, "kind"),
        )
        self._resident = self._gauge("process_resident_memory_bytes", "Resident memory of the process.", ())
        self._gpu_memory = self._gauge(
            "gpu_memory_used_bytes", "Used memory of the GPU, by everybody and by this process.", ("device", "scope")
        )
        self.keys = KeyMetrics(self._gauge)
        self._pairs = self._counter(
            "experiment_pairs", "Texts of compares, by whether both give them the same label.", (*of_pair, "result")
        )
        self._pair_seconds = self._counter(
            "experiment_infer_seconds", "Time of the batches of compares, of either side.", (*of_pair, "side")
        )
        for reason in Rejection:
            self._rejections.labels(reason.value)
        self._loaded: dict[VariantName, VariantFacts] = {}
        # Looking up a child by its labels costs more than counting.
        self._http_of: dict[tuple[str, str, int], Counter] = {}
        self._http_seconds_of: dict[tuple[str, str], Histogram] = {}
        for method, route in routes:
            self._http_seconds_of[method, route] = self._http_seconds.labels(method, route)
            for status in statuses:
                self._http_of[method, route, status] = self._http_requests.labels(method, route, str(status))

    def names(self) -> list[str]:
        """Every metric as Prometheus shows it."""
        suffix = {"counter": "_total"}
        return sorted(family.name + suffix.get(family.type, "") for family in self.registry.collect())

    def on_http(self, method: str, route: str, status: int, duration_s: float) -> None:
        """An HTTP request was answered; `method` and `route` are of a closed set."""
        counter = self._http_of.get((method, route, status))
        (counter or self._http_requests.labels(method, route, str(status))).inc()
        self._http_seconds_of[method, route].observe(duration_s)

    def on_rejection(self, reason: Rejection) -> None:
        """A request was refused."""
        self._rejections.labels(reason.value).inc()

    def add_failed(self, name: VariantName) -> None:
        """A variant that did not load."""
        self._ready.labels(name.model, name.variant).set(0)

    def add_variant(self, facts: VariantFacts) -> VariantMetrics:
        """A variant that loaded, maybe in place of its former bundle; the answer counts what happens to it."""
        labels = (facts.name.model, facts.name.variant)
        self._remove_info(facts.name)
        self._loaded[facts.name] = facts
        self._info.labels(*_info_labels(facts)).set(1)
        self._load_seconds.labels(*labels).set(facts.load_s)
        for kind, num_bytes in _memory_of(facts).items():
            self._memory.labels(*labels, kind).set(num_bytes)
        self._ready.labels(*labels).set(1)
        for other in self._loaded.keys() - {facts.name}:
            self._begin_pair(facts.name, other)
            self._begin_pair(other, facts.name)
        return VariantMetrics(self, facts.name, facts.version)

    def on_compared(
        self,
        baseline: VariantName,
        variant: VariantName,
        verdicts: Mapping[Verdict, int],
        infer_s: Mapping[Side, float],
    ) -> None:
        """Two variants answered the same texts, equally often."""
        for verdict, num_texts in verdicts.items():
            self._pairs.labels(baseline.model, baseline.variant, variant.variant, verdict.value).inc(num_texts)
        for side, duration_s in infer_s.items():
            self._pair_seconds.labels(baseline.model, baseline.variant, variant.variant, side.value).inc(duration_s)

    def _begin_pair(self, baseline: VariantName, variant: VariantName) -> None:
        if baseline.model == variant.model:
            self.on_compared(baseline, variant, dict.fromkeys(Verdict, 0), dict.fromkeys(Side, 0.0))

    def remove_variant(self, name: VariantName) -> None:
        """A variant that is loaded no more: its gauges go, and what was counted stays."""
        labels = (name.model, name.variant)
        for kind in self._remove_info(name):
            self._memory.remove(*labels, kind)
        for gauge in (self._ready, self._load_seconds, self.queue_depth, self.queue_tokens, self.silence):
            gauge.remove(*labels)

    def _remove_info(self, name: VariantName) -> list[str]:
        """Forget what was loaded; the kinds of memory that were told of it."""
        facts = self._loaded.pop(name, None)
        if facts is None:
            return []
        self._info.remove(*_info_labels(facts))
        return list(_memory_of(facts))

    def set_ready(self, name: VariantName, *, ready: bool) -> None:
        """Whether a variant can answer now."""
        self._ready.labels(name.model, name.variant).set(int(ready))

    def set_queue_limits(self, num_items: int, num_tokens: int) -> None:
        """So much may wait for each variant."""
        self._queue_limit.labels("texts").set(num_items)
        self._queue_limit.labels("tokens").set(num_tokens)

    def set_gpu_memory(self, device: str, used_bytes: int | None, *, scope: Literal["device", "process"]) -> None:
        """How much memory of a GPU is used now; NaN where NVML does not tell."""
        self._gpu_memory.labels(device, scope).set(float("nan") if used_bytes is None else used_bytes)

    def render(self, resident_bytes: int) -> bytes:
        """The text that Prometheus reads."""
        self._resident.set(resident_bytes)
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


class KeyMetrics:
    """Tells whether the keys in force are those of their file."""

    def __init__(self, gauge: Callable[[str, str, Sequence[str]], Gauge]) -> None:
        self._successful = gauge(
            "keys_last_reload_successful",
            "0 from a SIGHUP until the keys file was read again, and for as long as it cannot be; else 1.",
            (),
        )
        self._successful.set(1)
        self._read_at = gauge(
            "keys_last_reload_success_timestamp_seconds",
            "When the keys in force began to be read, in seconds since unix epoch; 0 without a keys file.",
            (),
        )

    def on_read(self, at_s: float) -> None:
        """The keys in force began to be read then."""
        self._read_at.set(at_s)

    def watch(self, served: Callable[[], bool]) -> None:
        """Ask at each scrape whether nobody asked for newer ones: who signals and scrapes at once is told the truth."""
        self._successful.set_function(lambda: float(served()))


def _info_labels(facts: VariantFacts) -> tuple[str, ...]:
    who = (facts.name.model, facts.name.variant)
    return (*who, facts.version, facts.precision, facts.provider, facts.sha256, facts.ort)


def _memory_of(facts: VariantFacts) -> dict[str, int]:
    told = {"load_delta": facts.memory_bytes, "file": facts.file_bytes, "gpu_load_delta": facts.gpu_memory_bytes}
    return {kind: num_bytes for kind, num_bytes in told.items() if num_bytes is not None}
