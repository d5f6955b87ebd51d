"""No request reaches a file that it names, and no text reaches the log."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from service.app import ROUTERS, create_app
from service.encoding import EncodedBatch
from service.engine import EchoEngine
from service.keys import Scope, make_key, write_line
from service.opening import open_engine_with
from service.settings import Settings
from service.tokenizer import TextInput, TextTokenizer
from service.variants import load_catalog

PLAIN, KEY = make_key("ops", Scope.ADMIN, None, lambda num_bytes: "k" * num_bytes)
SECRET = "secret-marker"
ODD_NAMES = [
    f"../{SECRET}", f"../../../../tmp/{SECRET}", f"..\\{SECRET}", f"/{SECRET}", f"reviews/../{SECRET}",
    f"{SECRET}\0.png", f"file:///{SECRET}", f"~/{SECRET}", f"{SECRET}\n", "..",
]  # fmt: skip
_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_watch)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Every path that is opened or listed in the block."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture
def opened_up(models_folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service with an admin key, which the client sends, beside a folder that nobody may reach."""
    (tmp_path / SECRET).mkdir()
    (tmp_path / "keys").write_text(write_line(KEY))
    (tmp_path / "keys").chmod(0o600)
    settings = Settings(models=models_folder, threads=1, api_keys=str(tmp_path / "keys"))
    with TestClient(create_app(settings), raise_server_exceptions=False, headers={"X-API-Key": PLAIN}) as running:
        yield running


def bodies(name: str) -> list[object]:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
    return [
        {"inputs": "good", "model": name},
        {"inputs": "good", "variant": name},
        {"inputs": "good", "variants": ["dense", name]},
        {"inputs": [tensor], "parameters": {"variant": name}},
        {"model": name, "variant": name},
    ]


def test_no_path_leads_from_a_request_to_a_file(opened_up: TestClient) -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    statuses = set()
    with watched() as opened:
        for route in routes:
            for name in ODD_NAMES:
                parameters = dict.fromkeys(route.param_convertors, quote(name, safe=""))
                for method in route.methods:
                    path = route.path.format(**parameters)
                    for body in bodies(name)[: 1 if parameters else 5] if method == "POST" else [None]:
                        statuses.add(opened_up.request(method, path, json=body).status_code)
    assert [path for path in opened if SECRET in path or ".." in path or "~" in path] == []
    assert max(statuses) < 500


def test_files_of_the_docs_are_a_closed_list(opened_up: TestClient) -> None:
    assert opened_up.get("/docs/nope").status_code == 404  # FastAPI reads where a route is written, once
    with watched() as opened:
        for name in ODD_NAMES[:-1]:  # the client itself makes `/` of `/docs/..`
            for encoded in (quote(name), quote(name, safe=""), quote(quote(name, safe=""), safe="")):
                raw_path = b"/docs/" + encoded.encode()
                answer = opened_up.get(opened_up.base_url.copy_with(raw_path=raw_path))
                assert answer.status_code == 404, raw_path
    assert opened == []


class Failing(TextTokenizer):
    """Fails on one word, with an error that does not quote it."""

    def encode(self, inputs: list[TextInput], max_tokens: int) -> list[object]:
        if any("awful" in one.text for one in inputs):
            raise RuntimeError("the tokenizer failed")
        return super().encode(inputs, max_tokens)


def fail_on_many(batch: EncodedBatch) -> None:
    if batch.num_items > 1:
        raise RuntimeError(f"the engine failed on {batch}")


def outcomes() -> list[tuple[str, bytes, dict[str, str], int]]:
    def body(inputs: object, **more: object) -> bytes:
        return json.dumps({"inputs": inputs, "variant": "dense", **more}).encode()

    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [SECRET]}
    return [
        ("/v1/predict", body(SECRET), {}, 200),
        ("/v2/models/reviews/infer", json.dumps({"inputs": [tensor]}).encode(), {}, 200),
        ("/v1/compare", json.dumps({"inputs": SECRET}).encode(), {}, 200),
        ("/v1/predict", b'{"inputs": "' + SECRET.encode(), {}, 400),
        ("/v1/predict", body({SECRET: 1}), {}, 400),
        ("/v1/predict", body(SECRET, **{SECRET: 1}), {}, 400),
        ("/v1/predict", body(SECRET), {"X-Request-Timeout-Ms": SECRET}, 400),
        ("/v1/predict", body(SECRET), {"Content-Encoding": SECRET}, 400),
        ("/v1/predict", body(SECRET, model=SECRET), {}, 404),
        (f"/{SECRET}", body(SECRET), {}, 404),
        (f"/v2/models/{SECRET}/infer", b"{}", {}, 400),
        ("/v1/predict", body(SECRET * 100_000), {}, 413),
        ("/v1/predict", body(f"{SECRET} " * 100), {}, 422),
        ("/v1/predict", body([SECRET] * 300), {}, 422),
        ("/v1/predict", body([SECRET, "good"]), {}, 500),
        ("/v1/predict", body(f"awful {SECRET}"), {}, 500),
        ("/v1/predict", body(f"awful {SECRET} " * 1000, truncate=True), {}, 500),
    ]


@pytest.fixture
def failing(models_folder: Path, make_tokenizer: Callable[[], object]) -> Iterator[TestClient]:
    """A service whose tokenizer and engine fail on some requests."""
    settings = Settings(models=models_folder, threads=1)
    catalog = load_catalog(settings, open_engine_with(settings), time.monotonic)
    loaded = tuple(
        replace(bundle, engine=EchoEngine(fail_on_many), tokenizer=Failing(make_tokenizer()))
        for bundle in catalog.loaded
    )
    with TestClient(create_app(settings, replace(catalog, loaded=loaded))) as running:
        yield running


def test_no_text_is_logged_whatever_happens(failing: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for path, sent, headers, status in outcomes():
            answer = failing.post(path, content=sent, headers={"X-API-Key": f"{SECRET}-key", **headers})
            assert answer.status_code == status, (path, sent[:100], answer.text)
        formatter = logging.Formatter("%(message)s")
        # httpx is the test's own client, which logs what it asks.
        ours = [record for record in caplog.records if record.name.split(".")[0] not in ("httpx", "httpx2", "httpcore")]
        lines = [formatter.format(record) + repr(record.args) for record in ours]
    assert len([line for line in lines if "Traceback" in line]) == 3
    assert [line for line in lines if SECRET in line] == []
