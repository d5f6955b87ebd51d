"""A request is a span in the caller's trace, with a span below it for each stage of each variant's run."""

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from service.app import create_app
from service.cli import open_tracer
from service.logs import json_formatter
from service.settings import Settings
from service.tracing import OtelTracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
OF_DENSE = {
    "sparsebert.model": "reviews", "sparsebert.variant": "dense", "sparsebert.version": "0123456789ab",
    "sparsebert.num_texts": 2, "sparsebert.tokens": 19, "sparsebert.truncated": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Traced:
    client: TestClient
    exporter: InMemorySpanExporter

    def spans(self) -> list[ReadableSpan]:
        """In the order in which they ended; the request's comes last."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found


@pytest.fixture
def traced(models_folder: Path) -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(SimpleSpanProcessor(exporter), {}, time.time_ns)
    settings = Settings(models=models_folder, threads=1, access_log=True)
    with TestClient(create_app(settings, tracer=tracer), raise_server_exceptions=False) as client:
        yield Traced(client, exporter)
    tracer.close()


def test_a_request_is_a_span_with_its_stages(traced: Traced) -> None:
    response = traced.client.post(
        "/v1/predict",
        json={"inputs": ["good", "good " * 20], "truncate": True},
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "me"},
    )
    *stages, request = traced.spans()
    assert (request.name, request.kind, request.status.status_code) == (
        "POST /v1/predict", SpanKind.SERVER, StatusCode.UNSET,
    )  # fmt: skip
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(request.attributes) == {
        "sparsebert.request_id": "me", "http.request.method": "POST", "http.route": "/v1/predict",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert request.resource.attributes["service.name"] == "sparsebert"
    assert response.headers["traceparent"] == f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert [(span.name, dict(span.attributes)) for span in stages] == [
        ("tokenize", OF_DENSE),
        ("queue", OF_DENSE),
        ("infer", {**OF_DENSE, "sparsebert.batch_size": 2}),
    ]
    assert {span.parent.span_id for span in stages} == {request.context.span_id}
    moments = [request.start_time] + [time for span in stages for time in (span.start_time, span.end_time)]
    assert moments == sorted(moments)
    assert stages[-1].end_time <= request.end_time


def test_a_compare_has_the_stages_of_every_run(traced: Traced) -> None:
    traced.client.post("/v1/compare", json={"inputs": "good", "repeats": 2})
    *stages, request = traced.spans()
    assert request.parent is None
    assert [span.attributes["sparsebert.variant"] for span in stages if span.name == "infer"] == [
        "dense", "sparse", "sparse", "dense",
    ]  # fmt: skip


def test_a_refusal_has_the_stages_that_it_came_to(traced: Traced) -> None:
    traced.client.post("/v1/predict", json={"inputs": "good " * 20})
    assert [span.name for span in traced.spans()] == ["POST /v1/predict"]
    traced.client.app.state.serving.variants.clear()
    traced.client.post("/v1/predict", json={"inputs": "good"})
    [request] = traced.spans()
    assert (request.attributes["http.response.status_code"], request.status.status_code) == (500, StatusCode.ERROR)


def test_a_caller_that_does_not_record_is_followed(traced: Traced) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    response = traced.client.post("/v1/predict", json={"inputs": "good"}, headers=headers)
    assert response.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert response.headers["traceparent"].endswith("-00")
    assert traced.spans() == []


@pytest.mark.parametrize("header", ["", "00-xyz", f"00-{'0' * 32}-{PARENT}-01", "\xff"])
def test_a_header_that_is_none_begins_a_trace(traced: Traced, header: str) -> None:
    response = traced.client.post(
        "/v1/predict", json={"inputs": "good"}, headers=[(b"traceparent", header.encode("latin-1"))]
    )
    assert response.status_code == 200
    assert traced.spans()[-1].parent is None


def test_probes_are_not_traced(traced: Traced) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/models/reviews/ready"):
        assert "traceparent" not in traced.client.get(path).headers
    assert traced.spans() == []


def test_log_lines_name_the_trace(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_formatter())
    caplog.set_level(logging.INFO, "service")
    logging.getLogger("service").addHandler(handler)
    traced.client.post("/v1/predict", json={"inputs": "good"})
    logging.getLogger("service").removeHandler(handler)
    request, line = traced.spans()[-1], json.loads(stream.getvalue())
    assert (line["trace_id"], line["span_id"]) == (
        f"{request.context.trace_id:032x}", f"{request.context.span_id:016x}",
    )  # fmt: skip


def test_nothing_is_traced_unless_asked_for(client: TestClient) -> None:
    assert "traceparent" not in client.post("/v1/predict", json={"inputs": "good"}).headers
    assert open_tracer(Settings(), {}) is None
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    assert open_tracer(Settings(), {**asked, "OTEL_SDK_DISABLED": "true"}) is None
    for settings, environment in ((Settings(), asked), (Settings(otlp_endpoint="http://localhost:4318"), {})):
        tracer = open_tracer(settings, environment)
        assert tracer is not None
        tracer.close()


def test_asked_for_without_the_extra() -> None:
    code = "import sys; sys.modules['opentelemetry.sdk.trace'] = None; from sparsebert.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--otlp-endpoint", "http://localhost:4318"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "sparsebert serve: --otlp-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, which need: "
        "pip install 'sparsebert[otel]' (the package 'opentelemetry.sdk.trace' is missing)\n"
    )
