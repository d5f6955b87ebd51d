"""`POST /v1/predict` answers what the graph computes, in order, whatever the form of the inputs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from service.app import create_app
from service.openapi import EXAMPLES
from service.settings import Settings

Logits = Callable[..., np.ndarray]
LABELS = ("negative", "positive")


def probabilities(logits: np.ndarray) -> dict[str, float]:
    powers = np.exp(logits - logits.max())
    return dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True))


def predict(client: TestClient, **body: object) -> dict:
    response = client.post("/v1/predict", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_one_text(client: TestClient, expected_logits: Logits) -> None:
    answer = predict(client, inputs="the good film")
    assert (answer["model"], answer["variant"], answer["version"]) == ("reviews", "dense", "0123456789ab")
    [prediction] = answer["predictions"]
    expected = probabilities(expected_logits(0, "the good film"))
    assert prediction["scores"] == pytest.approx(expected, abs=1e-6)
    assert prediction["label"] == max(expected, key=lambda label: expected[label])
    assert prediction["score"] == prediction["scores"][prediction["label"]]
    assert (prediction["tokens"], prediction["truncated"]) == (5, False)
    assert set(answer["timings_ms"]) == {"tokenize", "queue", "infer", "total"}


def test_many_texts_are_answered_in_order(client: TestClient, expected_logits: Logits) -> None:
    texts = ["good", "the bad plot", "awful", "very very very good film", "not fine", "a"] * 20
    answer = predict(client, inputs=texts, variant="sparse")
    for text, prediction in zip(texts, answer["predictions"], strict=True):
        assert prediction["scores"] == pytest.approx(probabilities(expected_logits(1, text)), abs=1e-6)


def test_objects_and_texts_may_be_mixed(client: TestClient) -> None:
    answer = predict(client, inputs=["good", {"text": "good"}, {"text": "good", "text_pair": None}])
    first, second, third = answer["predictions"]
    assert first == second == third


def test_top_k_limits_the_scores(client: TestClient) -> None:
    [prediction] = predict(client, inputs="good", top_k=1)["predictions"]
    assert prediction["scores"] == {prediction["label"]: prediction["score"]}


def test_a_long_text_is_cut_only_when_asked(client: TestClient, expected_logits: Logits) -> None:
    text = " ".join(["good"] * 40)
    response = client.post("/v1/predict", json={"inputs": ["bad", text]})
    assert response.status_code == 422
    assert response.json()["error"] == (
        'inputs[1] has 42 tokens, the limit is 16; shorten it, or send "truncate": true to have it cut'
    )
    [prediction] = predict(client, inputs=text, truncate=True)["predictions"]
    assert (prediction["tokens"], prediction["truncated"]) == (16, True)
    assert prediction["scores"] == pytest.approx(probabilities(expected_logits(0, " ".join(["good"] * 14))), abs=1e-6)


def test_timings_are_in_a_header_too(client: TestClient) -> None:
    response = client.post("/v1/predict", json={"inputs": "good"})
    told = response.json()["timings_ms"]
    assert list(told) == ["tokenize", "queue", "infer", "total"]
    assert response.headers["server-timing"] == ", ".join(f"{stage};dur={value:g}" for stage, value in told.items())
    header = client.post("/v1/compare", json={"inputs": "good"}).headers["server-timing"]
    assert [entry.partition(";")[0] for entry in header.split(", ")] == [
        "dense-tokenize", "dense-queue", "dense-infer", "dense-total",
        "sparse-tokenize", "sparse-queue", "sparse-infer", "sparse-total",
    ]  # fmt: skip
    assert "server-timing" not in client.post("/v1/predict", json={"inputs": []}).headers


@pytest.fixture
def pair_client(tmp_path: Path, write_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    write_bundle(tmp_path, model="questions", pair=True)
    with TestClient(create_app(Settings(models=tmp_path))) as running:
        yield running


def test_pairs(pair_client: TestClient, expected_logits: Logits) -> None:
    [prediction] = predict(pair_client, inputs={"text": "good", "text_pair": "the plot"})["predictions"]
    assert prediction["scores"] == pytest.approx(probabilities(expected_logits(0, "good", "the plot")), abs=1e-6)
    response = pair_client.post("/v1/predict", json={"inputs": "good"})
    assert response.status_code == 400
    assert "questions reads pairs" in response.json()["error"]


def test_probes_and_the_page_answer_head(service_url: str) -> None:
    with httpx.Client(base_url=service_url, trust_env=False) as asking:
        for path in ("/healthz", "/readyz", "/"):
            whole, head = asking.get(path), asking.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(whole.content))
            assert asking.put(path).status_code == 405


def test_compare(client: TestClient, expected_logits: Logits) -> None:
    texts = ["good", "bad", "the awful film", "fine"]
    response = client.post("/v1/compare", json={"inputs": texts, "repeats": 3})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["baseline"], answer["repeats"]) == ("reviews", "dense", 3)
    assert list(answer["variants"]) == ["dense", "sparse"]
    labels = {}
    for seed, variant in enumerate(["dense", "sparse"]):
        predictions = answer["variants"][variant]["predictions"]
        for text, prediction in zip(texts, predictions, strict=True):
            assert prediction["scores"] == pytest.approx(probabilities(expected_logits(seed, text)), abs=1e-6)
        labels[variant] = [prediction["label"] for prediction in predictions]
    same = sum(a == b for a, b in zip(labels["dense"], labels["sparse"], strict=True)) / 4
    assert answer["agreement"] == answer["variants"]["sparse"]["agreement_with_baseline"] == same
    assert answer["speedup"]["dense"] == 1.0
    assert answer["speedup"]["sparse"] > 0


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"variants": []}, 400, "comparing needs two different variants, variants names none"),
        ({"variants": ["dense"]}, 400, "comparing needs two different variants, variants names only dense"),
        ({"variants": ["dense", "dense"]}, 400, "comparing needs two different variants, variants names only dense"),
        ({"variants": ["dense", "nope"]}, 404, "model 'reviews' has no variant 'nope'; it has dense, sparse"),
        ({"baseline": "nope"}, 400, "the baseline 'nope' is not compared; choose among dense, sparse"),
        ({"repeats": 21}, 400, "the field 'repeats' is wrong: input should be less than or equal to 20"),
        ({"variant": "dense"}, 400, None),
    ],
)
def test_compare_refuses(client: TestClient, body: dict, status: int, sentence: str | None) -> None:
    response = client.post("/v1/compare", json={"inputs": "good", **body})
    assert response.status_code == status
    if sentence is not None:
        assert response.json()["error"] == sentence


def test_a_pair_that_is_null_is_none_and_the_description_says_so(client: TestClient) -> None:
    body = {"inputs": [{"text": "good", "text_pair": None}]}
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for path, schema in (("/v1/predict", "PredictRequest"), ("/v1/compare", "CompareRequest")):
        assert client.post(path, json=body).status_code == 200
        Draft202012Validator(schemas[schema]).validate(body)


def test_models(client: TestClient) -> None:
    dense, sparse = client.get("/v1/models").json()["variants"]
    assert (dense["variant"], dense["default"], dense["state"]) == ("dense", True, "ready")
    assert (sparse["variant"], sparse["default"], sparse["provider"]) == ("sparse", False, "CPUExecutionProvider")
    assert dense["labels"] == ["negative", "positive"]
    assert (dense["parameters"], dense["encoder_sparsity"], dense["macs"]) == (1000, 0.5, 4000)
    assert dense["quality"]["value"] == 0.875
    assert dense["file_bytes"] > 0


def test_an_answer_that_would_depend_on_its_neighbours_is_computed_alone(
    tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    write_bundle(tmp_path, batch_invariant=False)
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        predict(client, inputs=["good", "bad", "fine"])
        assert "sparsebert_inference_executions_total{" in client.get("/metrics").text
        assert 'executions_total{model="reviews",variant="dense"} 3.0' in client.get("/metrics").text


def test_page_docs_and_openapi_need_no_internet(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200
        assert "http://" not in page.text
        assert "https://" not in page.text
    assert client.get("/docs/swagger-ui-bundle.js").status_code == 200
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/predict", "/v1/compare", "/v1/models", "/healthz", "/readyz", "/metrics", "/v1/admin/models",
        "/v1/admin/models/{model}/variants/{variant}/load", "/v1/admin/models/{model}/variants/{variant}/unload",
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/{model}",
        "/v2/models/{model}/ready", "/v2/models/{model}/stats", "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}", "/v2/models/{model}/versions/{version}/ready",
        "/v2/models/{model}/versions/{version}/stats", "/v2/models/{model}/versions/{version}/infer",
        "/v2/repository/index", "/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload",
    }  # fmt: skip
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/PredictRequest"}
    assert "PredictRequest" in document["components"]["schemas"]
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert [one["name"] for one in infer["parameters"]] == [
            "model", "X-Request-Timeout-Ms", "Inference-Header-Content-Length",
        ]  # fmt: skip


def test_the_examples_of_the_docs_are_answered(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, name in (("/v1/predict", "PredictRequest"), ("/v2/models/{model}/infer", "InferRequest")):
        examples = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert set(examples) == set(EXAMPLES[name])
        for title, example in examples.items():
            response = client.post(path.format(model="reviews"), json=example["value"])
            # The tiny model reads single texts.
            assert response.status_code == (400 if title == "a pair" else 200), (title, response.text)


def test_the_page_never_writes_markup_from_data(client: TestClient) -> None:
    page = client.get("/").text
    assert "textContent" in page
    assert not {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"} & set(page.replace(".", " ").split())


def test_request_ids(client: TestClient) -> None:
    given = client.get("/healthz", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = client.get("/nope", headers={"x-request-id": 'not a word"<script>'})
    assert made.headers["x-request-id"] == made.json()["request_id"] != 'not a word"<script>'
