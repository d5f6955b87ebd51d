"""What `/v2` refuses: one sentence with the status of `/v1`, never a 500, whatever bytes come."""

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import MalformedError, TooManyError
from service.oip.names import AskedName, read_name
from service.oip.reading import read_infer
from service.oip.tensors import read_binary_texts, split_body, write_binary_texts
from service.routing import VariantName
from service.settings import Settings

PATH = "/v2/models/reviews/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    """One app for the whole file: a refusal must leave nothing behind."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    with TestClient(create_app(Settings(models=folder, threads=1)), raise_server_exceptions=False) as running:
        yield running


def tensor(*texts: object, **more: object) -> dict:
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts), **more}


def with_parameters(**parameters: object) -> dict:
    return {"inputs": [tensor("good")], "parameters": parameters}


def with_output(name: str, **parameters: object) -> dict:
    return {"inputs": [tensor("good")], "outputs": [{"name": name, "parameters": parameters}]}


REFUSED = {
    "no inputs": ({}, 400, "'inputs' is missing"),
    "no text": ({"inputs": []}, 400, "the input 'text' is missing"),
    "unknown input": ({"inputs": [tensor("a", name="x")]}, 400, "there is no input 'x'; the inputs are text and"),
    "twice": ({"inputs": [tensor("a"), tensor("a")]}, 400, "the input 'text' is there twice"),
    "a pair for a single-text model": (
        {"inputs": [tensor("a"), tensor("b", name="text_pair")]}, 400, "leave out text_pair",
    ),
    "uneven pairs": (
        {"inputs": [tensor("a"), tensor("b", "c", name="text_pair")]}, 400, "1 of 'text' and 2 of 'text_pair'",
    ),
    "wrong type": ({"inputs": [tensor("a", datatype="FP32")]}, 400, "is FP32; texts are BYTES"),
    "wrong shape": ({"inputs": [tensor("a", shape=[1, 2])]}, 400, "has the shape [1, 2]; send [N] or [N, 1]"),
    "no shape": ({"inputs": [tensor("a", shape=[])]}, 400, "has the shape []"),
    "shape of another size": ({"inputs": [tensor("a", shape=[2])]}, 400, "has 1 elements, but its shape says 2"),
    "negative shape": ({"inputs": [tensor("a", shape=[-1])]}, 400, "greater than or equal to 0"),
    "endless shape": ({"inputs": [tensor("a", shape=[10**30])]}, 400, "less than or equal to"),
    "big shape": ({"inputs": [tensor("a", shape=[2**62])]}, 422, "the limit is 256"),
    "257 texts": ({"inputs": [tensor(*["a"] * 257)]}, 422, "inputs has 257 texts, the limit is 256"),
    "no texts": ({"inputs": [tensor()]}, 400, "empty list"),
    "an empty text": ({"inputs": [tensor("a", "")]}, 400, "inputs[1] is empty"),
    "NUL": ({"inputs": [tensor("a\0b")]}, 400, "NUL character at position 1"),
    "a number": ({"inputs": [tensor(3)]}, 400, "element 0 of the input 'text' is not a text"),
    "neither data nor size": ({"inputs": [tensor(data=None)]}, 400, "either data or the parameter binary_data_size"),
    "both": ({"inputs": [tensor("a", parameters={"binary_data_size": 5})]}, 400, "either data or the parameter"),
    "binary data that is not there": (
        {"inputs": [tensor(data=None, shape=[1], parameters={"binary_data_size": 5})]}, 400, "but 0 are left",
    ),
    "shared memory in": (
        {"inputs": [tensor(data=None, shape=[1], parameters={"shared_memory_region": "x"})]}, 400, "shared memory",
    ),
    "shared memory out": (with_output("label", shared_memory_region="x"), 400, "shared memory"),
    "unknown output": (with_output("logits"), 400, "there is no output 'logits'; the outputs are label, score, prob"),
    "output twice": ({"inputs": [tensor("a")], "outputs": [{"name": "label"}] * 2}, 400, "asked for twice"),
    "classes of labels": (with_output("label", classification=2), 400, "'label' has no classes"),
    "unknown parameter": (with_parameters(truncat=True), 400, "'truncat' is unknown; the parameters are truncate, var"),
    "a text as flag": (with_parameters(truncate="yes"), 400, "'parameters.truncate' is wrong"),
    "unknown variant": (with_parameters(variant="nope"), 404, "it has dense, sparse"),
    "a number as id": ({"inputs": [tensor("a")], "id": 3}, 400, "'id' is wrong"),
    "not an object": ([], 400, "must be a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests(client: TestClient, case: str) -> None:
    body, status, words = REFUSED[case]
    response = client.post(PATH, content=json.dumps(body).encode())
    answer = response.json()
    assert (response.status_code, words in answer["error"]) == (status, True), answer
    assert answer["request_id"] == response.headers["x-request-id"]
    assert client.post(PATH, json={"inputs": [tensor("good")]}).status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v2/models/nope/infer", 404, "there is no model 'nope'; there is reviews"),
        ("/v2/models/reviews/versions/1/infer", 404, "has no variant '1'; it has dense, sparse"),
        ("/v2/models/reviews.dense/versions/sparse/infer", 400, "names the variants dense and sparse; name one"),
    ],
)
def test_names_that_are_not_there(client: TestClient, path: str, status: int, words: str) -> None:
    response = client.post(path, json={"inputs": [tensor("good")]})
    assert (response.status_code, words in response.json()["error"]) == (status, True), response.text
    assert client.get(path.removesuffix("/infer")).status_code == status
    assert client.get(path.replace("/infer", "/ready")).status_code == status
    assert client.get(path.replace("/infer", "/stats")).status_code == status


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        ({LENGTH: "x"}, b"{}", "is no number"),
        ({LENGTH: "-1"}, b"{}", "is no number"),
        ({LENGTH: "9" * 5000}, b"{}", "is no number"),
        ({LENGTH: "3"}, b"{}", "says 3, but the body has 2 bytes only"),
        ({LENGTH: "1"}, b"{}", "not valid JSON"),
        ({LENGTH: "0"}, b"\xff", "the body is not UTF-8 at byte 0"),
        ({LENGTH: "0"}, b"", "inputs[0] is empty"),
        ({}, b"", "not valid JSON"),
        ({}, b'{"inputs": [], "id": ' + b"9" * 100_000 + b"}", "number out of range"),
        ({}, b'{"inputs": [{"shape": [' + b"9" * 100_000 + b"]}]}", "number out of range"),
        ({}, b'{"inputs": ' + b"[" * 2_000, "recursion limit"),
        ({"Content-Encoding": "gzip"}, b"{}", "send it plain"),
    ],
)
def test_headers_and_bodies(client: TestClient, headers: dict[str, str], body: bytes, words: str) -> None:
    response = client.post(PATH, content=body, headers=headers)
    assert (response.status_code, words in response.json()["error"]) == (400, True), response.text


def test_a_body_that_is_too_large(client: TestClient) -> None:
    assert client.post(PATH, content=b"x" * 2_000_000).status_code == 413


def binary(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b"\x01", 1, "ends within the length of element 0"),
        (b"\x05\0\0\0abc", 1, "ends within element 0: it says that it has 5 bytes, and 3 are left"),
        (b"\xff\xff\xff\xff", 1, "it says that it has 4294967295 bytes, and 0 are left"),
        (binary(b"a", b"b"), 1, "has more elements than its shape, which says 1"),
        (binary(b"a"), 2, "has 1 elements, but its shape says 2"),
        (binary(b"a", b"\xff"), 2, "element 1 of the input 'text' is not UTF-8 at byte 0"),
    ],
)
def test_binary_texts_that_are_refused(data: bytes, count: int, words: str) -> None:
    with pytest.raises(MalformedError) as refused:
        read_binary_texts(memoryview(data), count, "text")
    assert words in str(refused.value)


def test_what_is_claimed_is_not_allocated() -> None:
    head = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 2**62}}
    tracemalloc.start()
    with pytest.raises(MalformedError, match="4294967295"):
        read_binary_texts(memoryview(b"\xff\xff\xff\xffabc"), 2**62, "text")
    with pytest.raises(MalformedError, match="says that it has 4611686018427387904 bytes"):
        read_infer(json.dumps({"inputs": [head]}).encode(), None, 256)
    with pytest.raises(TooManyError):
        read_infer(json.dumps({"inputs": [{**head, "shape": [2**62]}]}).encode(), None, 256)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_binary_texts_come_back(texts: list[str]) -> None:
    assert read_binary_texts(memoryview(write_binary_texts(texts)), len(texts), "text") == texts


@given(st.binary(max_size=64), st.integers(0, 8))
def test_any_binary_data_is_read_or_refused(data: bytes, count: int) -> None:
    try:
        texts = read_binary_texts(memoryview(data), count, "text")
    except MalformedError:
        return
    assert write_binary_texts(texts) == data
    assert len(texts) == count


@given(st.binary(max_size=32), st.none() | st.text(max_size=6) | st.integers(-2, 40).map(str))
def test_any_body_is_split_or_refused(body: bytes, head_length: str | None) -> None:
    try:
        head, tail = split_body(body, head_length)
    except MalformedError:
        return
    assert head + bytes(tail) == body


NUMBERS = st.integers(-2, 12) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**400])
WORDS = st.sampled_from(["text", "text_pair", "label", "probabilities", "BYTES", "FP32", "", "good", "x" * 70])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | WORDS, lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["binary_data_size", "binary_data", "classification", "truncate", "variant", "timeout", "binary_data_output",
         "shared_memory_region", "priority", "odd"]
    ),
    VALUES, max_size=2,
)  # fmt: skip
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": WORDS, "shape": st.lists(NUMBERS, max_size=3) | VALUES, "datatype": WORDS | VALUES,
        "parameters": PARAMETERS | VALUES, "data": VALUES,
    },
)  # fmt: skip
GOOD_TENSORS = st.builds(
    lambda data, parameters: {
        "name": "text", "shape": [len(data)], "datatype": "BYTES", "data": data, "parameters": parameters,
    },
    st.lists(st.sampled_from(["good", "the bad film", "", "good " * 20]), max_size=3), PARAMETERS,
)  # fmt: skip
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(GOOD_TENSORS | TENSORS, max_size=3) | VALUES},
    optional={
        "id": VALUES, "parameters": PARAMETERS | VALUES,
        "outputs": st.lists(st.fixed_dictionaries({"name": WORDS}, optional={"parameters": PARAMETERS})) | VALUES,
    },
)  # fmt: skip


@settings(max_examples=100)
@given(request=REQUESTS, tail=st.binary(max_size=24), shift=st.sampled_from([None, 0, 0, 1, -1, 5]))
def test_any_request_is_answered_or_refused_in_a_sentence(
    client: TestClient, request: dict, tail: bytes, shift: int | None
) -> None:
    head = json.dumps(request).encode()
    headers = {} if shift is None else {LENGTH: str(len(head) + shift)}
    response = client.post(PATH, content=head + tail, headers=headers)
    assert response.status_code in {200, 400, 404, 422, 504}, response.text
    if response.status_code != 200:
        assert len(response.json()["error"]) < 500


NAMES = [VariantName(model=model, variant=variant) for model, variant in [("a", "b"), ("a", "b.c"), ("a.b", "c")]]


def test_names() -> None:
    assert read_name("a", None, NAMES) == AskedName(model="a", variant=None)
    assert read_name("a.b", None, NAMES) == AskedName(model="a.b", variant=None), "a model's own name comes first"
    assert read_name("a.b", "c", NAMES) == AskedName(model="a.b", variant="c")
    assert read_name("nope", "c", NAMES) == AskedName(model="nope", variant="c")
    with pytest.raises(Exception, match=r"'a.b.c' may be a/b.c or a.b/c; send the model's name"):
        read_name("a.b.c", None, NAMES)
