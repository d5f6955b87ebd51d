"""Tiny real bundles and a running app, shared by the tests of the service."""

import asyncio
import hashlib
import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from benchmarks.service_process import started
from service.app import create_app
from service.cli import bind, server_config
from service.keys import KeyRing, Scope, make_key, write_line
from service.settings import Settings
from sparsebert.manifest import seal

WORDS = ("good", "bad", "fine", "awful", "film", "plot", "the", "a", "very", "not")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)
LABELS = ("negative", "positive")
MAX_LENGTH = 16
ADMIN_PLAIN, ADMIN_KEY = make_key("operator", Scope.ADMIN, None, lambda size: "k" * size)
WriteBundle = Callable[..., Path]


def build_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def build_table(seed: int) -> np.ndarray:
    """Logits of each word, of shape [vocabulary, labels]."""
    return np.random.default_rng(seed).normal(size=(len(VOCABULARY), len(LABELS))).astype(np.float32)


def build_graph(table: np.ndarray) -> onnx.ModelProto:
    """logits = sum over real tokens of table[id] × (1 + token type)."""
    free = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, free)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Add", ["token_type_ids", "one"], ["types"]),
        helper.make_node("Mul", ["attention_mask", "types"], ["weights"]),
        helper.make_node("Cast", ["weights"], ["weights_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights_float", "last"], ["weights_last"]),
        helper.make_node("Mul", ["rows", "weights_last"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["logits"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([-1]), "last"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array(1), "one"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    graph = helper.make_graph(nodes, "tiny", inputs, [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def logits_of(table: np.ndarray, text: str, text_pair: str | None = None) -> np.ndarray:
    """What the graph must say, computed with numpy alone."""
    encoded = build_tokenizer().encode(text, text_pair)
    weights = np.array(encoded.type_ids) + 1
    return (table[encoded.ids] * weights[:, None]).sum(axis=0)


def build_manifest(model: str, variant: str, pair: bool, folder: Path) -> dict:
    geometry = {
        "hidden_size": 4, "head_size": 2, "heads_L": [2], "neurons_L": [8], "vocabulary_size": len(VOCABULARY),
        "max_positions": MAX_LENGTH, "token_types": 2, "num_labels": len(LABELS),
    }  # fmt: skip
    inputs = [
        {"name": name, "dtype": "int64", "shape": [-1, -1]}
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    return {
        "schema_version": 2, "name": model, "variant": variant, "version": "0123456789ab", "labels": list(LABELS),
        "task": {"name": "sst2", "pair": pair}, "geometry": geometry, "dense_geometry": geometry,
        "inputs": inputs, "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, 2]}],
        "max_sequence_length": MAX_LENGTH, "precision": "fp32", "weight_range": None, "batch_invariant": True,
        "opset": 17, "operators": {"Gather": 1}, "form": {"layout": "padded"}, "tuned": False,
        "compact_difference": 0.0, "provenance": {"commit": "none"},
        "quality": {"metric": "accuracy", "value": 0.875, "data": "tiny", "num_examples": 8},
        "parity": {"max_logit_difference": 1e-6, "label_agreement": 1.0, "num_examples": 8},
        "parity_random_ids": {"max_logit_difference": 1e-6, "label_agreement": 1.0, "num_examples": 8},
        "size": {
            "parameters": 1000, "encoder_parameters": 500, "encoder_sparsity": 0.5, "macs": 4000,
            "macs_sequence_length": MAX_LENGTH,
        },
        "files": {
            name: {
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                "size_bytes": (folder / name).stat().st_size,
            }
            for name in ("model.onnx", "tokenizer.json", "golden.json")
        },
    }  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An async test runs in an event loop of its own, and not for ever."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.function(**arguments), timeout=60))
    return True


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[], Tokenizer]:
    """The word tokenizer of the tiny bundles."""
    return build_tokenizer


@pytest.fixture(scope="session")
def expected_logits() -> Callable[..., np.ndarray]:
    """What the graph of a seed must say of a text, computed with numpy alone."""
    return lambda seed, text, text_pair=None: logits_of(build_table(seed), text, text_pair)


def write_tiny_bundle(
    models: Path, model: str = "reviews", variant: str = "dense", *,
    seed: int = 0, pair: bool = False, golden_off_by: float = 0.0, spare_rows: int = 0, **manifest: object,
) -> Path:  # fmt: skip
    folder = models / model / variant
    folder.mkdir(parents=True)
    # Rows of 8 bytes that no word reads make it as large as a real one.
    table = np.pad(build_table(seed), ((0, spare_rows), (0, 0)))
    onnx.save(build_graph(table), folder / "model.onnx")
    build_tokenizer().save(str(folder / "tokenizer.json"))
    text_pair = "bad film" if pair else None
    golden = {
        "inputs": [{"text": "the good film", "text_pair": text_pair}],
        "logits": [[float(x) + golden_off_by for x in logits_of(table, "the good film", text_pair)]],
        "tolerance": 1e-3,
    }
    (folder / "golden.json").write_text(json.dumps(golden))
    written = build_manifest(model, variant, pair, folder) | manifest
    (folder / "manifest.json").write_text(json.dumps(seal(written)))
    return folder


@pytest.fixture(scope="session")
def write_bundle() -> WriteBundle:
    """Writes a tiny bundle."""
    return write_tiny_bundle


@pytest.fixture
def models_folder(tmp_path: Path, write_bundle: WriteBundle) -> Path:
    """The model `reviews` with the variants dense and sparse."""
    folder = tmp_path / "models"
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    return folder


@pytest.fixture(scope="session")
def service_url(tmp_path_factory: pytest.TempPathFactory, write_bundle: WriteBundle) -> Iterator[str]:
    """A real process that serves `reviews` with the variants dense and sparse, and the pairs of `questions`."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    write_bundle(folder, model="questions", pair=True, seed=0)
    with started(folder, "--threads", "1", "--default-variant", "reviews/dense") as service:
        yield service.url


class _Server(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of an app that uvicorn serves in a thread, as `sparsebert serve` would."""
    listener = bind("127.0.0.1", 0)
    server = _Server(server_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert server.listening.wait(timeout=60)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            client.app = app
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


WAYS = {"through the framework": partial(TestClient, raise_server_exceptions=False), "whole": served}


@pytest.fixture(scope="session")
def ways() -> dict[str, Callable[[FastAPI], AbstractContextManager[httpx.Client]]]:
    """How requests get to an app: all through the framework, or over a socket, where those that come whole do not."""
    return WAYS


@dataclass(frozen=True, kw_only=True)
class AdminService:
    """A real process."""

    process_id: int
    url: str

    @property
    def headers(self) -> dict[str, str]:
        """By which its variants may be changed; new each time, for clients that write into them."""
        return {"X-API-Key": ADMIN_PLAIN}


@pytest.fixture(scope="session")
def admin_service(tmp_path_factory: pytest.TempPathFactory, write_bundle: WriteBundle) -> Iterator[AdminService]:
    """Serves `reviews/dense`; `reviews/sparse` and `large/dense`, of 64 MB, lie there."""
    folder = tmp_path_factory.mktemp("changed")
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    write_bundle(folder, model="large", seed=2, spare_rows=8_000_000)
    keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    keys.write_text(write_line(ADMIN_KEY))
    keys.chmod(0o600)
    with started(folder, "--threads", "1", "--variants", "reviews/dense", "--api-keys", str(keys)) as service:
        yield AdminService(process_id=service.process.pid, url=service.url)


@pytest.fixture
def client(models_folder: Path) -> Iterator[TestClient]:
    """A running app over `models_folder`."""
    settings = Settings(models=models_folder, threads=1, max_body_bytes=1_000_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture
def admin_client(models_folder: Path) -> Iterator[TestClient]:
    """The same, by one who may change what serves."""
    app = create_app(Settings(models=models_folder, threads=1), ring=KeyRing(keys=(ADMIN_KEY,)))
    with TestClient(app, raise_server_exceptions=False, headers={"X-API-Key": ADMIN_PLAIN}) as running:
        yield running
