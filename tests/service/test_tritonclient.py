"""NVIDIA's own client, unchanged, against a real process: every call of the protocol that both have."""

import asyncio
from collections.abc import Callable, Iterator

import numpy as np
import pytest

triton = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
triton_aio = pytest.importorskip("tritonclient.http.aio", reason="pip install 'tritonclient[http]'")
utils = pytest.importorskip("tritonclient.utils", reason="pip install 'tritonclient[http]'")

Logits = Callable[..., np.ndarray]
TEXTS = ("the good film", "awful plot", "not very fine")


@pytest.fixture
def client(service_url: str) -> Iterator:
    with triton.InferenceServerClient(service_url.removeprefix("http://")) as connected:
        yield connected


def text_input(*texts: str, name: str = "text", shape: tuple[int, ...] | None = None, binary_data: bool = True):
    values = np.array(texts, dtype=np.object_).reshape(shape or (len(texts),))
    tensor = triton.InferInput(name, list(values.shape), "BYTES")
    return tensor.set_data_from_numpy(values, binary_data=binary_data)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_the_server_is_told(client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("reviews")
    assert client.is_model_ready("reviews", "sparse")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "sparsebert"
    assert client.get_model_metadata("reviews")["versions"] == ["dense", "sparse"]
    assert client.get_model_metadata("questions", "dense")["inputs"][1]["name"] == "text_pair"
    index = {(one["name"], one["version"]): one["state"] for one in client.get_model_repository_index()}
    assert index == {("questions", "dense"): "READY", ("reviews", "dense"): "READY", ("reviews", "sparse"): "READY"}


@pytest.mark.parametrize("binary_data", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(("model", "version", "seed"), [("reviews", "", 0), ("reviews", "sparse", 1)])
def test_texts(
    client, expected_logits: Logits, model: str, version: str, seed: int, shape: tuple[int, ...], binary_data: bool
) -> None:
    tensor = text_input(*TEXTS, shape=shape, binary_data=binary_data)
    result = client.infer(model, [tensor], model_version=version, request_id="seven")
    expected = np.stack([softmax(expected_logits(seed, text)) for text in TEXTS])
    assert result.as_numpy("probabilities") == pytest.approx(expected, abs=1e-6)
    assert result.as_numpy("score") == pytest.approx(expected.max(axis=1), abs=1e-6)
    labels = [(b"negative", b"positive")[index] for index in expected.argmax(axis=1)]
    assert result.as_numpy("label").tolist() == labels
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("seven", model, version or "dense")


def test_outputs_that_are_asked_for(client) -> None:
    outputs = [
        triton.InferRequestedOutput("probabilities", binary_data=True, class_count=2),
        triton.InferRequestedOutput("label", binary_data=False),
    ]
    result = client.infer("reviews.sparse", [text_input("good")], outputs=outputs)
    first, second = (one.decode().split(":") for one in result.as_numpy("probabilities")[0])
    assert float(first[0]) >= float(second[0])
    assert {first[2], second[2]} == {"negative", "positive"}
    assert result.as_numpy("label").tolist() == [first[2]]
    assert result.as_numpy("score") is None


def test_pairs_and_parameters(client, expected_logits: Logits) -> None:
    inputs = [text_input("good"), text_input("the plot", name="text_pair")]
    result = client.infer("questions", inputs)
    expected = softmax(expected_logits(0, "good", "the plot"))
    assert result.as_numpy("probabilities")[0] == pytest.approx(expected, abs=1e-6)
    cut = client.infer("reviews", [text_input("good " * 40)], parameters={"truncate": True, "variant": "sparse"})
    assert cut.get_response()["model_version"] == "sparse"
    assert cut.get_response()["parameters"]["truncated"] == 1


def test_refusals_are_its_exceptions(client) -> None:
    for call, status, words in (
        (lambda: client.infer("nope", [text_input("good")]), "404", "there is no model 'nope'"),
        (lambda: client.infer("reviews", [text_input("good " * 40)]), "422", "has 42 tokens, the limit is 16"),
        (lambda: client.infer("reviews", [text_input("")]), "400", "inputs[0] is empty"),
        (lambda: client.get_model_metadata("reviews", "1"), "404", "has no variant '1'"),
    ):
        with pytest.raises(utils.InferenceServerException) as refused:
            call()
        assert refused.value.status() == status
        assert words in refused.value.message()


def test_models_are_loaded_and_unloaded(admin_service) -> None:
    headers = admin_service.headers
    with triton.InferenceServerClient(admin_service.url.removeprefix("http://")) as client:

        def ready() -> list[str]:
            index = client.get_model_repository_index(headers=headers)
            return [f"{one['name']}.{one['version']}" for one in index if one["state"] == "READY"]

        assert ready() == ["reviews.dense"]
        client.load_model("reviews.sparse", headers=headers)
        assert client.is_model_ready("reviews", "sparse", headers=headers)
        label = client.infer("reviews.sparse", [text_input("good")], headers=headers).as_numpy("label").tolist()
        client.load_model("reviews", headers=headers)
        again = client.infer("reviews.sparse", [text_input("good")], headers=headers).as_numpy("label").tolist()
        assert again == label
        client.unload_model("reviews.sparse", headers=headers)
        assert not client.is_model_ready("reviews", "sparse", headers=headers)
        client.unload_model("reviews", unload_dependents=True, headers=headers)
        assert ready() == []
        client.load_model("reviews.dense", headers=headers)
        assert ready() == ["reviews.dense"]
        for call, status, words in (
            (lambda: client.load_model("nope", headers=headers), "404", "there is no model 'nope'"),
            (lambda: client.load_model("reviews", config="{}", headers=headers), "400", "'config' is not taken"),
            (lambda: client.infer("reviews.sparse", [text_input("good")], headers=headers), "404", "is not loaded"),
        ):
            with pytest.raises(utils.InferenceServerException) as refused:
                call()
            assert (refused.value.status(), words in refused.value.message()) == (status, True)


def test_statistics_grow_by_what_was_asked(client) -> None:
    def stats() -> dict:
        [one] = client.get_inference_statistics("reviews", "sparse")["model_stats"]
        return one

    before = stats()
    client.infer("reviews", [text_input("good", "bad")], model_version="sparse")
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert len(client.get_inference_statistics()["model_stats"]) == 3


def test_many_at_once(client, service_url: str) -> None:
    async def scenario() -> list:
        async with triton_aio.InferenceServerClient(service_url.removeprefix("http://")) as connected:
            asked = [connected.infer("reviews", [text_input(*TEXTS[: index % 3 + 1])]) for index in range(12)]
            return [result.as_numpy("label").tolist() for result in await asyncio.gather(*asked)]

    alone = client.infer("reviews", [text_input(*TEXTS)]).as_numpy("label").tolist()
    assert asyncio.run(scenario()) == [alone[: index % 3 + 1] for index in range(12)]
