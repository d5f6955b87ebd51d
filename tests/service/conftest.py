"""A running app, real processes and whatever else the tests of the service share."""

import asyncio
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from benchmarks.service_process import started
from service.app import create_app
from service.cli import bind, server_config
from service.keys import KeyRing, Scope, make_key, write_line
from service.settings import Settings
from tiny_bundles import build_table, build_tokenizer, logits_of, write_tiny_bundle

ADMIN_PLAIN, ADMIN_KEY = make_key("operator", Scope.ADMIN, None, lambda size: "k" * size)
WriteBundle = Callable[..., Path]


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
