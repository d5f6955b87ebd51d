"""What stands in for a server when the client is tested, and one call to either form of the client."""

import asyncio

import httpx
import pytest

from sparsebert.client import AsyncClient, Client

PREDICTED = {
    "model": "demo", "variant": "dense", "version": "0123456789ab", "future": 1,
    "predictions": [
        {"label": "good", "score": 0.9, "scores": {"good": 0.9, "bad": 0.1}, "tokens": 3, "truncated": False}
    ],
    "timings_ms": {"tokenize": 0.1, "queue": 0.2, "infer": 1.5, "total": 2.0},
}  # fmt: skip
LOADED = {
    "model": "demo", "variant": "sparse", "version": "0123456789ab", "former_version": None, "load_s": 0.2,
    "memory_bytes": 1000,
}  # fmt: skip
UNLOADED = {"model": "demo", "variant": "sparse", "former_version": "0123456789ab", "gone": True}
URL = "http://service"


class Answers:
    """A server that gives the answers of a list, one after the other, and keeps what it was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.requests: list = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok(body: object = PREDICTED):
    return httpx.Response(200, json=body)


def refused(status: int, **headers: str):
    body = {"error": "a sentence with the cure", "request_id": "abc"}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def call(server: Answers, form: type, method: str, *inputs: object, **options: object):
    """One call to a method of either form of the client."""
    own = {name: options.pop(name) for name in ("api_key", "retries") if name in options}
    if form is Client:
        with Client(URL, transport=server.transport, **own) as client:
            return getattr(client, method)(*inputs, **options)

    async def scenario():
        async with AsyncClient(URL, transport=server.transport, **own) as client:
            return await getattr(client, method)(*inputs, **options)

    return asyncio.run(scenario())


def predict(server: Answers, form: type, *inputs: object, **options: object):
    return call(server, form, "predict", *inputs, **options)


def use(client: object, form: type):
    """One prediction, and the client is closed."""
    if form is Client:
        with client:
            return client.predict("a")

    async def scenario():
        async with client:
            return await client.predict("a")

    return asyncio.run(scenario())


BOTH = pytest.mark.parametrize("form", [Client, AsyncClient])
