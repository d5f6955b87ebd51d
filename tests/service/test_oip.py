"""`/v2` speaks the Open Inference Protocol: tensors in and out, as JSON or as binary data."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

Logits = Callable[..., np.ndarray]
LENGTH = "Inference-Header-Content-Length"


def tensor(*texts: str, name: str = "text", **more: object) -> dict:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts), **more}


def infer(client: TestClient, *texts: str, path: str = "/v2/models/reviews/infer", **request: object) -> dict:
    response = client.post(path, json={"inputs": [tensor(*texts)], **request})
    assert response.status_code == 200, response.text
    return response.json()


def data_of(answer: dict) -> dict:
    return {output["name"]: output["data"] for output in answer["outputs"]}


def binary(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary_request(head: dict, tail: bytes) -> tuple[bytes, dict[str, str]]:
    encoded = json.dumps(head).encode()
    return encoded + tail, {LENGTH: str(len(encoded))}


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_texts_as_json(client: TestClient, expected_logits: Logits) -> None:
    answer = infer(client, "the good film", "bad", id="42")
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("reviews", "dense", "42")
    assert answer["parameters"] == {"bundle_version": "0123456789ab", "truncated": 0}
    assert [(one["name"], one["datatype"], one["shape"]) for one in answer["outputs"]] == [
        ("label", "BYTES", [2]), ("score", "FP32", [2]), ("probabilities", "FP32", [2, 2]),
    ]  # fmt: skip
    expected = [softmax(expected_logits(0, text)) for text in ("the good film", "bad")]
    data = data_of(answer)
    assert data["probabilities"] == pytest.approx(np.concatenate(expected).tolist(), abs=1e-6)
    assert data["score"] == pytest.approx([row.max() for row in expected], abs=1e-6)
    assert data["label"] == [("negative", "positive")[row.argmax()] for row in expected]


def test_what_it_says_is_what_predict_says(client: TestClient) -> None:
    texts = ["the good film", "awful", "not very fine"]
    predictions = client.post("/v1/predict", json={"inputs": texts, "variant": "sparse"}).json()["predictions"]
    data = data_of(infer(client, *texts, path="/v2/models/reviews.sparse/infer"))
    assert data["label"] == [one["label"] for one in predictions]
    assert data["score"] == pytest.approx([one["score"] for one in predictions], abs=1e-7)


@pytest.mark.parametrize(
    ("path", "parameters", "variant"),
    [
        ("/v2/models/reviews/infer", {}, "dense"),
        ("/v2/models/reviews/versions/sparse/infer", {}, "sparse"),
        ("/v2/models/reviews.sparse/infer", {}, "sparse"),
        ("/v2/models/reviews.sparse/versions/sparse/infer", {"variant": "sparse"}, "sparse"),
        ("/v2/models/reviews/infer", {"variant": "sparse"}, "sparse"),
        ("/v2/models/reviews/infer", {"variant": None}, "dense"),
    ],
)
def test_how_a_variant_is_named(client: TestClient, path: str, parameters: dict, variant: str) -> None:
    answer = infer(client, "good", path=path, parameters=parameters)
    assert (answer["model_name"], answer["model_version"]) == (path.split("/")[3], variant)


def test_shapes(client: TestClient) -> None:
    flat = infer(client, "good", "bad")
    for data in (["good", "bad"], [["good"], ["bad"]]):
        column = {"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": data}
        answer = client.post("/v2/models/reviews/infer", json={"inputs": [column]}).json()
        assert answer["outputs"] == flat["outputs"]


def test_binary_data_both_ways(client: TestClient) -> None:
    plain = data_of(infer(client, "good", "the bad film, naïve"))
    tail = binary(b"good", "the bad film, naïve".encode())
    head = {
        "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}],
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "probabilities"},
            {"name": "score", "parameters": {"binary_data": False}},
            {"name": "label", "parameters": {"binary_data": True}},
        ],
    }
    body, headers = binary_request(head, tail)
    response = client.post("/v2/models/reviews/infer", content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[LENGTH])
    answer, rest = json.loads(response.content[:length]), response.content[length:]
    probabilities, score, label = answer["outputs"]
    assert probabilities == {
        "name": "probabilities", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16},
    }  # fmt: skip
    assert np.frombuffer(rest[:16], "<f4").tolist() == plain["probabilities"]
    assert score["data"] == plain["score"]
    labels = binary(*(one.encode() for one in plain["label"]))
    assert label["parameters"] == {"binary_data_size": len(labels)}
    assert rest[16:] == labels


def test_a_body_that_is_one_text(client: TestClient) -> None:
    response = client.post("/v2/models/reviews/infer", content=b"the good film", headers={LENGTH: "0"})
    head = json.loads(response.content[: int(response.headers[LENGTH])])
    assert [output["name"] for output in head["outputs"]] == ["label", "score", "probabilities"]
    assert all("binary_data_size" in output["parameters"] for output in head["outputs"])
    [label] = data_of(infer(client, "the good film"))["label"]
    assert binary(label.encode()) in response.content


def test_classes(client: TestClient) -> None:
    asked = [{"name": "probabilities", "parameters": {"classification": 1}}]
    answer = infer(client, "good", "bad", outputs=asked)
    plain = data_of(infer(client, "good", "bad"))
    [output] = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 1])
    expected = [
        f"{score:f}:{('negative', 'positive').index(label)}:{label}"
        for score, label in zip(plain["score"], plain["label"], strict=True)
    ]
    assert output["data"] == expected
    many = infer(client, "good", outputs=[{"name": "probabilities", "parameters": {"classification": 9}}])
    assert many["outputs"][0]["shape"] == [1, 2]


def test_a_long_text_is_cut_only_when_asked(client: TestClient) -> None:
    long = "good " * 40
    response = client.post("/v2/models/reviews/infer", json={"inputs": [tensor("bad", long)]})
    assert response.status_code == 422
    assert "inputs[1] has 42 tokens, the limit is 16" in response.json()["error"]
    assert infer(client, "bad", long, parameters={"truncate": True})["parameters"]["truncated"] == 1


def test_parameters_of_other_servers_clients_are_passed_over(client: TestClient) -> None:
    parameters = {"priority": 1, "sequence_id": 7, "triton_enable_empty_final_response": True, "content_type": "str"}
    infer(client, "good", parameters=parameters, model_name="reviews")


def test_the_time_of_each_stage_is_in_a_header(client: TestClient) -> None:
    for parameters in ({}, {"binary_data_output": True}):
        body = {"inputs": [tensor("good")], "parameters": parameters}
        header = client.post("/v2/models/reviews/infer", json=body).headers["server-timing"]
        assert [entry.partition(";")[0] for entry in header.split(", ")] == ["tokenize", "queue", "infer", "total"]


def test_a_timeout_of_the_request_is_kept(client: TestClient) -> None:
    response = client.post("/v2/models/reviews/infer", json={"inputs": [tensor("good")], "parameters": {"timeout": 1}})
    assert response.json()["error"] == (
        "reviews/dense did not answer within 1e-06 s, the request's own parameter timeout; "
        "send fewer texts at a time, or allow more time"
    )
    assert response.status_code == 504
    infer(client, "good", parameters={"timeout": 60_000_000})


@pytest.fixture
def pair_client(tmp_path: Path, write_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    write_bundle(tmp_path, model="questions.v1", variant="dense", pair=True)
    with TestClient(create_app(Settings(models=tmp_path))) as running:
        yield running


def test_pairs(pair_client: TestClient, expected_logits: Logits) -> None:
    metadata = pair_client.get("/v2/models/questions.v1").json()
    assert [one["name"] for one in metadata["inputs"]] == ["text", "text_pair"]
    tail = binary(b"the plot")
    head = {
        "inputs": [
            tensor("good"),
            {
                "name": "text_pair", "shape": [1, 1], "datatype": "BYTES",
                "parameters": {"binary_data_size": len(tail)},
            },
        ]
    }  # fmt: skip
    body, headers = binary_request(head, tail)
    response = pair_client.post("/v2/models/questions.v1.dense/infer", content=body, headers=headers)
    expected = softmax(expected_logits(0, "good", "the plot"))
    assert data_of(response.json())["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)
    single = pair_client.post("/v2/models/questions.v1/infer", json={"inputs": [tensor("good")]})
    assert (single.status_code, "questions.v1 reads pairs" in single.json()["error"]) == (400, True)


def test_statistics(client: TestClient) -> None:
    infer(client, "good", "the bad film")
    client.post("/v1/predict", json={"inputs": "good"})
    client.post("/v1/predict", json={"inputs": "good " * 40})
    [dense, sparse] = client.get("/v2/models/stats").json()["model_stats"]
    assert (dense["name"], dense["version"], dense["inference_count"], dense["execution_count"]) == (
        "reviews", "dense", 3, 2,
    )  # fmt: skip
    counts = {name: one["count"] for name, one in dense["inference_stats"].items()}
    assert counts == {
        "success": 2, "fail": 1, "queue": 2, "compute_input": 2, "compute_infer": 2, "compute_output": 2,
        "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    success, infers = dense["inference_stats"]["success"]["ns"], dense["inference_stats"]["compute_infer"]["ns"]
    assert success >= infers == pytest.approx(sum(one["compute_infer"]["ns"] for one in dense["batch_stats"]), abs=2)
    assert [(one["batch_size"], one["compute_infer"]["count"]) for one in dense["batch_stats"]] == [(1, 1), (2, 1)]
    assert dense["last_inference"] > 1_700_000_000_000
    assert (sparse["last_inference"], sparse["inference_count"], sparse["batch_stats"]) == (0, 0, [])
    names = {
        path: [one["version"] for one in client.get(path).json()["model_stats"]]
        for path in ("/v2/models/reviews/stats", "/v2/models/reviews/versions/sparse/stats")
    }
    assert list(names.values()) == [["dense", "sparse"], ["sparse"]]
    assert client.get("/v2/models/reviews.dense/stats").json()["model_stats"] == [dense]
