"""Gauges tell what is there, labels are of closed sets; test_metric_deltas has what each request moves."""

import hashlib
import json
from pathlib import Path

import onnxruntime
from starlette.testclient import TestClient

DENSE = 'model="reviews",variant="dense"'


def scrape(client: TestClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def tensors(*texts: str, **parameters: object) -> bytes:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


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


def test_gauges(client: TestClient) -> None:
    values = scrape(client)
    assert values[f"sparsebert_model_ready{{{DENSE}}}"] == 1
    assert values[f"sparsebert_queue_depth{{{DENSE}}}"] == 0
    assert values[f"sparsebert_inflight_requests{{{DENSE}}}"] == 0
    assert values['sparsebert_queue_limit{kind="texts"}'] == 1024
    assert values['sparsebert_queue_limit{kind="tokens"}'] == 131072
    assert values["sparsebert_process_resident_memory_bytes"] > 1_000_000
    assert values["process_cpu_seconds_total"] > 0
    assert values[f'sparsebert_model_memory_bytes{{kind="file",{DENSE}}}'] > 100
    assert values[f"sparsebert_batcher_heartbeat_timestamp_seconds{{{DENSE}}}"] > 1.7e9


def test_a_variant_tells_what_is_loaded(client: TestClient, models_folder: Path) -> None:
    digest = hashlib.sha256((models_folder / "reviews" / "dense" / "model.onnx").read_bytes()).hexdigest()
    info = (
        f'sparsebert_model_info{{model="reviews",ort="{onnxruntime.__version__}",precision="fp32",'
        f'provider="CPUExecutionProvider",sha256="{digest}",variant="dense",version="0123456789ab"}}'
    )
    assert scrape(client)[info] == 1
