"""Which proxy the client goes through, and that it really does."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from sparsebert.client import AsyncClient, Client, ClientError, RefusedError
from sparsebert.client.proxies import proxy_of

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One without a proxy."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("named", "url", "expected"),
    [
        ({}, "http://service", None),
        ({"HTTP_PROXY": "http://proxy:1"}, "http://service:8000", "http://proxy:1"),
        ({"HTTP_PROXY": "proxy:1"}, "http://service", "http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:1"}, "https://service", None),
        ({"HTTPS_PROXY": "http://proxy:2"}, "https://service", "http://proxy:2"),
        ({"ALL_PROXY": "http://proxy:3"}, "http://service", "http://proxy:3"),
        ({"HTTP_PROXY": "http://proxy:1"}, "http://localhost:8000", "http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "localhost"}, "http://localhost:8000", None),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "localhost"}, "http://service", "http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": ".corp"}, "http://a.corp", None),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "a.corp:80"}, "http://a.corp:8000", "http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "::1"}, "http://[::1]:8000", None),
        ({"HTTP_PROXY": "http://proxy:1", "NO_PROXY": "*"}, "http://service", None),
    ],
)
def test_the_environment_names_the_proxy(
    environment: pytest.MonkeyPatch, named: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in named.items():
        environment.setenv(name, value)
    assert proxy_of(httpx.URL(url)) == expected


@pytest.fixture
def proxy() -> Iterator[HTTPServer]:
    """One that answers 404 itself, and keeps what it was asked in `paths`."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.paths = []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def test_requests_go_through_it(environment: pytest.MonkeyPatch, proxy: HTTPServer) -> None:
    environment.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")

    async def scenario() -> None:
        async with AsyncClient("http://service.invalid:8000") as client:
            await client.models()

    with pytest.raises(RefusedError, match="is it this service, or a proxy"):
        asyncio.run(scenario())
    with Client("http://service.invalid") as client, pytest.raises(RefusedError):
        client.models()
    own = f"http://127.0.0.1:{proxy.server_port}"
    with Client(own, transport=httpx.HTTPTransport()) as client, pytest.raises(RefusedError):
        client.models()
    assert proxy.paths == [
        "http://service.invalid:8000/v1/models", "http://service.invalid/v1/models", "/v1/models",
    ]  # fmt: skip


@pytest.mark.parametrize("address", ["ftp://user:secret@proxy", "http://[::"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    environment: pytest.MonkeyPatch, address: str
) -> None:
    environment.setenv("ALL_PROXY", address)
    with pytest.raises(ClientError, match="the proxy that the environment names cannot be used") as caught:
        Client("http://service")
    assert "secret" not in str(caught.value)
