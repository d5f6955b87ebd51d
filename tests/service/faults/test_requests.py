"""What fails while one request is read, tokenised or answered fails that request and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.encoding import Encoding
from service.routes import predict
from service.tokenizer import TextInput, TextTokenizer

GENERIC = "the service failed on this request; its log tells more under the request id"


class Choking(TextTokenizer):
    """Cannot swallow one word."""

    def encode(self, inputs: list[TextInput], max_tokens: int) -> list[Encoding]:
        if any("awful" in one.text for one in inputs):
            raise RuntimeError("secret of the tokenizer")
        return super().encode(inputs, max_tokens)


def serving_with_tokenizer(client: TestClient, make_tokenizer: Callable[[], object]) -> None:
    serving = client.app.state.serving
    name = serving.catalog.default
    variant = serving.variants[name]
    serving.variants[name] = replace(variant, bundle=replace(variant.bundle, tokenizer=Choking(make_tokenizer())))


@pytest.mark.parametrize("more", [0, 10_000], ids=["in the event loop", "in a thread"])
def test_tokenizer(
    client: TestClient, make_tokenizer: Callable[[], object], more: int, caplog: pytest.LogCaptureFixture
) -> None:
    serving_with_tokenizer(client, make_tokenizer)
    response = client.post("/v1/predict", json={"inputs": "awful" + " film" * (more // 5), "truncate": True})
    assert (response.status_code, response.json()["error"]) == (500, GENERIC)
    assert "secret of the tokenizer" in caplog.text
    assert client.post("/v1/predict", json={"inputs": "fine"}).status_code == 200
    metrics = client.get("/metrics").text
    assert 'outcome="error",variant="dense",version="0123456789ab"} 1.0' in metrics
    assert 'sparsebert_inflight_requests{model="reviews",variant="dense"} 0.0' in metrics


def test_writing_an_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret of the writer")

    with monkeypatch.context() as patched:
        patched.setattr(predict, "predictions", broken)
        response = client.post("/v1/predict", json={"inputs": "fine"})
        assert (response.status_code, response.json()["error"]) == (500, GENERIC)
    assert client.post("/v1/predict", json={"inputs": "fine"}).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_metric_that_cannot_be_written(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no room")

    variant = client.app.state.serving.variants[client.app.state.serving.catalog.default]
    with monkeypatch.context() as patched:
        patched.setattr(type(variant.metrics), "on_batch", broken)
        assert client.post("/v1/predict", json={"inputs": "fine"}).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_the_folder_of_models_may_vanish(client: TestClient, models_folder: Path) -> None:
    for path in sorted(models_folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert client.post("/v1/predict", json={"inputs": "fine"}).status_code == 200
