"""How do requests show up in distributed traces? The only file that imports OpenTelemetry, loaded when asked for.

A span for the request, and below it one for each stage of each variant's run, made of measured times when the
request is over. Knows nothing about how a request is answered.
"""

import threading
from collections.abc import Callable, Iterable, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from service.records import RequestRecord, VariantRun
from sparsebert import __version__

# A collector that does not answer must not keep the process from ending.
CLOSE_S = 5.0
PROPAGATOR = TraceContextTextMapPropagator()


class OtelTracer:
    """Makes spans of requests; `unix_ns` is the time of day."""

    def __init__(self, processor: SpanProcessor, environment: Mapping[str, str], unix_ns: Callable[[], int]) -> None:
        named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "sparsebert"}
        resource = Resource.create({**named, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("sparsebert", __version__)
        self._unix_ns = unix_ns

    def begin(self, record: RequestRecord, headers: Iterable[tuple[bytes, bytes]]) -> "RequestSpan":
        """See `Tracer`."""
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in (b"traceparent", b"tracestate")
        }
        now_ns = self._unix_ns()
        span = self._tracer.start_span(
            "request",
            context=PROPAGATOR.extract(carrier, Context()),
            kind=trace.SpanKind.SERVER,
            attributes={"sparsebert.request_id": record.request_id},
            start_time=now_ns,
        )
        return RequestSpan(self._tracer, span, now_ns - int(record.began_s * 1e9))

    def close(self) -> None:
        """Send what is left, within a limit."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class RequestSpan:
    """The span of one request; `zero_ns` is the time of day when the service's clock said 0."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, zero_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._zero_ns = zero_ns

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    @property
    def span_id(self) -> str:
        return trace.format_span_id(self._span.get_span_context().span_id)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self._span.get_span_context().trace_flags:02x}"

    def end(self, record: RequestRecord) -> None:
        """See `Trace`."""
        if self._span.is_recording():
            self._span.update_name(f"{record.method} {record.route}")
            self._span.set_attributes(
                {
                    "http.request.method": record.method,
                    "http.route": record.route,
                    "http.response.status_code": record.status,
                }
            )
            if record.status >= 500:
                self._span.set_status(trace.StatusCode.ERROR)
            for run in record.runs:
                self._tell(run)
        self._span.end(self._ns(record.ended_s))

    def _tell(self, run: VariantRun) -> None:
        of_run: dict[str, AttributeValue] = {
            "sparsebert.model": run.model,
            "sparsebert.variant": run.variant,
            "sparsebert.version": run.version,
            "sparsebert.num_texts": len(run.encodings),
            "sparsebert.tokens": run.num_tokens,
            "sparsebert.truncated": run.num_truncated,
        }
        if run.encoded_s is not None:
            self._stage("tokenize", run.began_s, run.encoded_s, of_run)
        if run.answer is not None:
            admitted_s = run.answer.admitted_s
            self._stage("queue", admitted_s, admitted_s + run.answer.queue_s, of_run)
            for batch in run.answer.batches:
                of_batch = {**of_run, "sparsebert.batch_size": batch.num_items}
                self._stage("infer", batch.began_s, batch.began_s + batch.infer_s, of_batch)

    def _stage(self, name: str, began_s: float, ended_s: float, attributes: Mapping[str, AttributeValue]) -> None:
        inside = trace.set_span_in_context(self._span, Context())
        span = self._tracer.start_span(name, context=inside, attributes=attributes, start_time=self._ns(began_s))
        span.end(self._ns(ended_s))

    def _ns(self, time_s: float) -> int:
        return self._zero_ns + int(time_s * 1e9)


def sending_to(endpoint: str) -> SpanProcessor:
    """Sends spans to a collector; without `endpoint` to where OpenTelemetry's own variables say."""
    url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=url))
