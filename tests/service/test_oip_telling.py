"""What the Open Inference Protocol tells of the server and its models, and when it calls them ready."""

from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from sparsebert import __version__

GOOD = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]}


def test_the_server_tells_what_it_is(client: TestClient) -> None:
    assert client.get("/v2").json() == {
        "name": "sparsebert",
        "version": __version__,
        "extensions": ["binary_tensor_data", "classification", "model_repository", "parameters", "statistics"],
    }
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/reviews/ready").json() == {"name": "reviews", "ready": True}
    assert client.get("/v2/models/reviews/versions/sparse/ready").json() == {"name": "reviews", "ready": True}
    assert client.get("/v2/models/reviews.sparse/ready").json() == {"name": "reviews.sparse", "ready": True}


def test_the_metadata_of_a_model(client: TestClient) -> None:
    answer = client.get("/v2/models/reviews").json()
    assert answer == {
        "name": "reviews",
        "versions": ["dense", "sparse"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "properties": {
            "variant": "dense", "bundle_version": "0123456789ab", "labels": '["negative", "positive"]',
            "precision": "fp32", "provider": "CPUExecutionProvider", "nodes_on_cpu": "0", "max_sequence_length": "16",
            "encoder_sparsity": "0.5",
        },
    }  # fmt: skip
    named = client.get("/v2/models/reviews.sparse").json()
    assert (named["name"], named["versions"], named["properties"]["variant"]) == (
        "reviews.sparse", ["sparse"], "sparse",
    )  # fmt: skip
    assert client.get("/v2/models/reviews/versions/sparse").json()["properties"]["variant"] == "sparse"


def test_a_model_named_stats_is_described_by_its_variants(tmp_path: Path, write_bundle: Callable[..., Path]) -> None:
    write_bundle(tmp_path, model="stats")
    with TestClient(create_app(Settings(models=tmp_path, threads=1))) as client:
        assert list(client.get("/v2/models/stats").json()) == ["model_stats"]
        assert client.get("/v2/models/stats.dense").json()["versions"] == ["dense"]
        assert client.get("/v2/models/stats/versions/dense").json()["name"] == "stats"
        assert client.post("/v2/models/stats/infer", json=GOOD).json()["model_version"] == "dense"


def test_the_index_lists_what_failed_too(models_folder: Path, write_bundle: Callable[..., Path]) -> None:
    write_bundle(models_folder, variant="odd", golden_off_by=1.0)
    with TestClient(create_app(Settings(models=models_folder))) as client:
        dense, odd, sparse = client.post("/v2/repository/index").json()
        assert dense == {"name": "reviews", "version": "dense", "state": "READY", "reason": ""}
        assert (odd["state"], "computes something else" in odd["reason"]) == ("UNAVAILABLE", True)
        assert client.post("/v2/repository/index", json={"ready": True}).json() == [dense, sparse]
        assert client.get("/v2/models/reviews/versions/odd/ready").status_code == 503
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200


def test_dead_workers_are_not_ready(client: TestClient) -> None:
    serving = client.app.state.serving
    serving.workers.close()
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/reviews/ready"):
        response = client.get(path)
        assert response.status_code == 503
        assert "the workers of reviews/dense are dead" in response.json()["error"]
        assert response.headers["retry-after"] == "1"
    assert [one["state"] for one in client.post("/v2/repository/index").json()] == ["UNAVAILABLE", "UNAVAILABLE"]


def test_a_drain_is_not_ready(client: TestClient) -> None:
    assert client.get("/v2/models/reviews.sparse/ready").status_code == 200
    client.app.state.serving.drain.begin(0.0)
    assert client.get("/v2/models/reviews.sparse/ready").status_code == 503
    assert client.post("/v2/models/reviews.sparse/infer", json=GOOD).status_code == 503
