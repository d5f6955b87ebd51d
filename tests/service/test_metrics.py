"""Counters move by exactly what happened, and every series exists before anything does."""

import json
import re

import pytest
from starlette.testclient import TestClient

DENSE = 'model="reviews",variant="dense"'
OUTCOME = 'sparsebert_inference_requests_total{{model="reviews",outcome="{}",variant="dense",version="0123456789ab"}}'
PREDICT = 'sparsebert_http_requests_total{{method="POST",route="/v1/predict",status="{}"}}'


def scrape(client: TestClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def deltas(client: TestClient, body: bytes, path: str = "/v1/predict") -> dict[str, float]:
    """Counters that one request moved; timings and the scrape itself left out."""
    before = scrape(client)
    client.post(path, content=body)
    after = scrape(client)
    assert before.keys() == after.keys()
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    timed = re.compile(r"_(sum|bucket)|_created|resident|heartbeat|/metrics|_seconds_count")
    return {name: value for name, value in moved.items() if not timed.search(name)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"inputs": ["good", "the bad film"]}',
            {
                PREDICT.format(200): 1, OUTCOME.format("ok"): 1,
                f"sparsebert_inference_inputs_total{{{DENSE}}}": 2,
                f"sparsebert_inference_executions_total{{{DENSE}}}": 1,
                f'sparsebert_tokens_total{{kind="real",{DENSE}}}': 8,
                f'sparsebert_tokens_total{{kind="padding",{DENSE}}}': 2,
                f"sparsebert_batch_size_count{{{DENSE}}}": 1,
                f"sparsebert_batch_tokens_count{{{DENSE}}}": 1,
                "sparsebert_input_tokens_count": 2,
            },
        ),
        (
            b'{"truncate": true, "inputs": "' + b"good " * 20 + b'"}',
            {
                PREDICT.format(200): 1, OUTCOME.format("ok"): 1,
                f"sparsebert_inference_inputs_total{{{DENSE}}}": 1,
                f"sparsebert_inference_executions_total{{{DENSE}}}": 1,
                f'sparsebert_tokens_total{{kind="real",{DENSE}}}': 16,
                f"sparsebert_batch_size_count{{{DENSE}}}": 1,
                f"sparsebert_batch_tokens_count{{{DENSE}}}": 1,
                f"sparsebert_truncated_inputs_total{{{DENSE}}}": 1,
                "sparsebert_input_tokens_count": 1,
            },
        ),
        (
            b'{"inputs": "' + b"good " * 20 + b'"}',
            {PREDICT.format(422): 1, OUTCOME.format("invalid"): 1, "sparsebert_input_tokens_count": 1},
        ),
        (b"{", {PREDICT.format(400): 1}),
        (b'{"inputs": "good", "variant": "nope"}', {PREDICT.format(404): 1}),
        (
            b"x" * 2_000_000,
            {PREDICT.format(413): 1, 'sparsebert_rejections_total{reason="body_too_large"}': 1},
        ),
    ],
    ids=["two texts", "truncated", "too long", "malformed", "unknown variant", "too large"],
)  # fmt: skip
def test_exact_deltas(client: TestClient, body: bytes, expected: dict[str, float]) -> None:
    assert deltas(client, body) == expected


def tensors(*texts: str, **parameters: object) -> bytes:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


@pytest.mark.parametrize(
    ("tensors_body", "body"),
    [
        (tensors("good", "the bad film"), b'{"inputs": ["good", "the bad film"]}'),
        (tensors("good " * 20, truncate=True), b'{"truncate": true, "inputs": "' + b"good " * 20 + b'"}'),
        (tensors("good " * 20), b'{"inputs": "' + b"good " * 20 + b'"}'),
        (tensors("good", variant="sparse"), b'{"inputs": "good", "variant": "sparse"}'),
        (tensors("good", variant="nope"), b'{"inputs": "good", "variant": "nope"}'),
        (b"{", b"{"),
        (b"x" * 2_000_000, b"x" * 2_000_000),
    ],
    ids=["two texts", "truncated", "too long", "another variant", "unknown variant", "malformed", "too large"],
)
def test_the_protocol_counts_as_predict_does(client: TestClient, tensors_body: bytes, body: bytes) -> None:
    expected = {
        name.replace("/v1/predict", "/v2/models/{model}/infer"): delta for name, delta in deltas(client, body).items()
    }
    assert deltas(client, tensors_body, "/v2/models/reviews/infer") == expected


def test_a_probe_of_the_protocol_is_no_refused_request(client: TestClient) -> None:
    client.app.state.serving.drain.begin(0.0)
    before = scrape(client)
    assert client.get("/v2/health/ready").status_code == 503
    assert client.get("/v2/models/reviews/ready").status_code == 503
    after = scrape(client)
    draining = 'sparsebert_rejections_total{reason="draining"}'
    assert after[draining] == before[draining] == 0
    client.post("/v2/models/reviews/infer", content=tensors("good"))
    assert scrape(client)[draining] == 1


def test_every_stage_is_timed_once(client: TestClient) -> None:
    client.post("/v1/predict", json={"inputs": ["good", "bad"]})
    after = scrape(client)
    for stage in ("tokenize", "queue", "infer", "postprocess"):
        assert after[f'sparsebert_stage_duration_seconds_count{{model="reviews",stage="{stage}",variant="dense"}}'] == 1


def test_raw_paths_and_odd_methods_are_no_labels(client: TestClient) -> None:
    before = scrape(client)
    client.get("/secret/path")
    client.request("BREW", "/v1/predict")
    after = scrape(client)
    assert before.keys() == after.keys()
    assert after['sparsebert_http_requests_total{method="GET",route="unmatched",status="404"}'] == 1
    assert sum(v for k, v in after.items() if 'status="405"' in k) == 1


def test_gauges(client: TestClient) -> None:
    values = scrape(client)
    assert values[f"sparsebert_model_ready{{{DENSE}}}"] == 1
    assert values[f"sparsebert_queue_depth{{{DENSE}}}"] == 0
    assert values[f"sparsebert_inflight_requests{{{DENSE}}}"] == 0
    assert values["sparsebert_process_resident_memory_bytes"] > 1_000_000
    assert values[f'sparsebert_model_memory_bytes{{kind="file",{DENSE}}}'] > 100
    assert values[f"sparsebert_batcher_heartbeat_timestamp_seconds{{{DENSE}}}"] > 1.7e9
