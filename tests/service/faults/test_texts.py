"""Odd texts, types and bodies have one status each, the same on every route and wire, and the next request is right."""

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.encoding import EncodedBatch, FloatArray
from service.engine import EchoEngine, Halt
from service.settings import Settings

INFER = "/v2/models/reviews/infer"
LENGTH = "Inference-Header-Content-Length"
MAX_BODY_BYTES = 1_000_000

TEXTS = {
    "a NUL": ("good\0film", 400, "NUL character at position 4"),
    "nothing but NUL": ("\0", 400, "NUL character at position 0"),
    "empty": ("", 400, "is empty; send a text with at least one character"),
    "spaces": (" \t\r\n", 400, "is empty; send a text with at least one character"),
    "spaces of Unicode": ("\u2003\u3000\u2028\u0085", 400, "is empty; send a text with at least one character"),
    "control characters": ("\x01\x02\x7f\x9c", 400, "is empty for the model"),
    "marks of direction": ("\u202e\u200f", 400, "is empty for the model"),
    "a joiner": ("\u200d", 400, "is empty for the model"),
    "a byte order mark": ("\ufeff", 400, "is empty for the model"),
    "noncharacters": ("\uffff\U0010ffff", 200, ""),
    "private use": ("\ue000", 400, "is empty for the model"),
    "an accent and no letter": ("\u0301", 400, "is empty for the model"),
    "50,001 characters": ("a" * 50_001, 422, "has a text of 50001 characters, the limit is 50000"),
    "50,000 characters without a space": ("a" * 50_000, 200, ""),
    "5,000 emoji": ("\U0001f600" * 5000, 200, ""),
    "2,000 words": ("good " * 2000, 422, "has 2002 tokens, the limit is 16"),
    "1,000 Chinese characters": ("\u597d" * 1000, 422, "has 1002 tokens, the limit is 16"),
    "right to left": ("\u05e1\u05e8\u05d8 \u05d8\u05d5\u05d1 \u0641\u064a\u0644\u0645", 200, ""),
    "direction turned around": ("good \u202emlif\u202c", 200, ""),
    "1,000 accents on a letter": ("a" + "\u0301" * 1000, 200, ""),
    "a family of emoji": ("\U0001f468\u200d\U0001f469\u200d\U0001f467", 200, ""),
    "mathematical letters": ("\U0001d420\U0001d428\U0001d428\U0001d41d", 200, ""),
    "control characters in words": ("go\x01od fi\x7flm", 200, ""),
    "the name of a special token": ("[SEP]", 200, ""),
    "quotes and backslashes": ('"\\"', 200, ""),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    """One app for the whole file: an odd request must leave nothing behind."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    chosen = Settings(models=folder, threads=1, max_body_bytes=MAX_BODY_BYTES)
    with TestClient(create_app(chosen), raise_server_exceptions=False) as running:
        yield running


def tensor(*data: object, **more: object) -> dict:
    return {"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": list(data), **more}


def binary(*texts: bytes) -> tuple[bytes, dict[str, str]]:
    data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    head = json.dumps({"inputs": [tensor(*texts, data=None, parameters={"binary_data_size": len(data)})]}).encode()
    return head + data, {LENGTH: str(len(head))}


def by_v1(text: str) -> tuple[str, bytes, dict[str, str]]:
    return "/v1/predict", json.dumps({"inputs": text}).encode(), {}


def by_compare(text: str) -> tuple[str, bytes, dict[str, str]]:
    return "/v1/compare", json.dumps({"inputs": [text]}).encode(), {}


def by_v2(text: str) -> tuple[str, bytes, dict[str, str]]:
    return INFER, json.dumps({"inputs": [tensor(text)]}).encode(), {}


def by_v2_utf8(text: str) -> tuple[str, bytes, dict[str, str]]:
    return INFER, json.dumps({"inputs": [tensor(text)]}, ensure_ascii=False).encode(), {}


def by_v2_binary(text: str) -> tuple[str, bytes, dict[str, str]]:
    body, headers = binary(text.encode())
    return INFER, body, headers


def by_v2_raw(text: str) -> tuple[str, bytes, dict[str, str]]:
    return INFER, text.encode(), {LENGTH: "0"}


def assert_next_is_right(client: TestClient) -> None:
    answer = client.post("/v1/predict", json={"inputs": "the good film"}).json()
    assert (answer["predictions"][0]["label"], answer["predictions"][0]["tokens"]) == ("positive", 5)


@pytest.mark.parametrize("case", TEXTS)
def test_texts(client: TestClient, case: str) -> None:
    text, status, words = TEXTS[case]
    for wire in (by_v1, by_compare, by_v2, by_v2_utf8, by_v2_binary, by_v2_raw):
        path, body, headers = wire(text)
        response = client.post(path, content=body, headers=headers)
        assert (response.status_code, words in response.text) == (status, True), (wire, response.text[:500])
    assert_next_is_right(client)


# Bytes that are no UTF-8 can only come in as bytes; JSON can also write a surrogate down.
@pytest.mark.parametrize("lone", [b"\xed\xa0\x80", b"\xff\xfe", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"good \xe2\x82"])
def test_bytes_that_are_no_utf8(client: TestClient, lone: bytes) -> None:
    body, headers = binary(lone)
    for path, content, more, words in (
        ("/v1/predict", b'{"inputs": "' + lone + b'"}', {}, "not valid JSON"),
        (INFER, json.dumps({"inputs": [tensor("?")]}).encode().replace(b"?", lone), {}, "not valid JSON"),
        (INFER, body, headers, "element 0 of the input 'text' is not UTF-8 at byte"),
        (INFER, lone, {LENGTH: "0"}, "the body is not UTF-8 at byte"),
    ):
        response = client.post(path, content=content, headers=more)
        assert (response.status_code, words in response.json()["error"]) == (400, True), response.text
    assert_next_is_right(client)


@pytest.mark.parametrize("escaped", ["\\ud800", "\\udfff", "\\ud83d good", "\\ude00\\ud83d"])
def test_lone_surrogates_in_json(client: TestClient, escaped: str) -> None:
    for path, body in (("/v1/predict", {"inputs": "?"}), (INFER, {"inputs": [tensor("?")]})):
        response = client.post(path, content=json.dumps(body).replace("?", escaped).encode())
        assert (response.status_code, "not valid JSON" in response.json()["error"]) == (400, True)
    assert_next_is_right(client)


DATATYPES = (
    "BOOL",
    "UINT8",
    "UINT64",
    "INT8",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "STRING",
    "bytes",
    "",
    "x" * 64,
)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_only_bytes_are_texts(client: TestClient, datatype: str) -> None:
    response = client.post(INFER, json={"inputs": [tensor("good", datatype=datatype)]})
    assert (response.status_code, response.json()["error"]) == (
        400, f"the input 'text' is {datatype}; texts are BYTES",
    )  # fmt: skip
    assert_next_is_right(client)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "true", "null", "{}", "[]", "3", "-0.0"])
def test_values_that_are_no_texts(client: TestClient, value: str) -> None:
    for path, body in (
        ("/v1/predict", f'{{"inputs": [{value}]}}'),
        ("/v1/compare", f'{{"inputs": [{value}]}}'),
        (INFER, '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [%s]}]}' % value),  # noqa: UP031
    ):
        assert client.post(path, content=body.encode()).status_code == 400, path
    assert_next_is_right(client)


@pytest.mark.parametrize(("depth", "status"), [(2, 400), (100, 400), (20_000, 422)])
def test_lists_in_lists(client: TestClient, depth: int, status: int) -> None:
    nested = "[" * depth + '"good"' + "]" * depth
    for path, body in (
        ("/v1/predict", f'{{"inputs": {nested}}}'),
        ("/v1/compare", f'{{"inputs": {nested}}}'),
        (INFER, '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [%s]}]}' % nested),  # noqa: UP031
        (INFER, f'{{"id": {nested}, "inputs": []}}'),
        ("/v2/repository/index", f'{{"ready": {nested}}}'),
    ):
        assert client.post(path, content=body.encode()).status_code == status, path
    assert_next_is_right(client)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/compare", INFER])
def test_compressed_bodies(client: TestClient, path: str) -> None:
    plain = json.dumps({"inputs": [tensor("good")]} if path == INFER else {"inputs": "good"}).encode()
    for encoding in ("gzip", "deflate", "br", "zstd"):
        response = client.post(path, content=gzip.compress(plain), headers={"Content-Encoding": encoding})
        assert response.status_code == 400, response.text
    assert client.post(path, content=gzip.compress(plain)).status_code == 400
    assert_next_is_right(client)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/compare", INFER])
def test_bodies_at_the_limit(client: TestClient, path: str) -> None:
    plain = json.dumps({"inputs": [tensor("good")]} if path == INFER else {"inputs": "good"}).encode()
    for num_bytes, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
        assert client.post(path, content=plain.ljust(num_bytes)).status_code == status
    assert_next_is_right(client)


class Poisoned(EchoEngine):
    """Gives a number that is none for a text with the word of id 5, `bad`."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        logits_BC = super().run(batch, halt)
        logits_BC[(batch.input_ids_BS == 5).any(axis=1), 1] = self._number
        return logits_BC


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers(models_folder: Path, number: float, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(Settings(models=models_folder, threads=1)), raise_server_exceptions=False) as running:
        batcher = running.app.state.serving.variants[running.app.state.serving.catalog.default].batcher
        batcher._engine = Poisoned(number)
        for wire in (by_v1, by_compare, by_v2, by_v2_binary):
            path, body, headers = wire("the bad film")
            response = running.post(path, content=body, headers=headers)
            assert response.status_code == 500
            assert response.json()["error"].startswith("the service failed on this request")
            assert running.post("/v1/predict", json={"inputs": "fine"}).status_code == 200
        assert running.get("/readyz").status_code == 200
