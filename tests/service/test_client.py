"""The typed client against a real process, and the Python examples of the documents, run as they stand."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from sparsebert.client import AsyncClient, Client, Pair, RefusedError

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    f"{page.name} {index}": block
    for page in (ROOT / "README.md", ROOT / "docs" / "service.md")
    for index, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if "localhost" in block
}


def test_predict(service_url: str, expected_logits: Callable[..., np.ndarray]) -> None:
    with Client(service_url) as client:
        assert client.ready()
        answer = client.predict(["the good film", "awful " * 40], variant="sparse", truncate=True)
        assert (answer.model, answer.variant, answer.version) == ("reviews", "sparse", "0123456789ab")
        label = ("negative", "positive")[expected_logits(1, "the good film").argmax()]
        assert [one.truncated for one in answer.predictions] == [False, True]
        assert answer.predictions[0].label == label
        assert client.predict(Pair("good", "the plot"), model="questions").predictions[0].tokens == 6


def test_compare_and_models(service_url: str) -> None:
    with Client(service_url) as client:
        answer = client.compare(["good", "bad"], repeats=2)
        assert (answer.baseline, list(answer.variants)) == ("dense", ["dense", "sparse"])
        models = client.models()
        assert [(one.model, one.variant, one.state) for one in models] == [
            ("questions", "dense", "ready"), ("reviews", "dense", "ready"), ("reviews", "sparse", "ready"),
        ]  # fmt: skip
        assert models[0].quality is not None


def test_a_refusal_has_the_id_of_the_service_s_log(service_url: str) -> None:
    with Client(service_url) as client, pytest.raises(RefusedError) as caught:
        client.predict("good", variant="nope")
    assert (caught.value.status, caught.value.sentence) == (
        404,
        "model 'reviews' has no variant 'nope'; it has dense, sparse",
    )
    assert re.fullmatch("[0-9a-f]{32}", caught.value.request_id or "")


def test_many_at_once(service_url: str) -> None:
    texts = ["good", "bad film", "very very fine"] * 5

    async def scenario() -> list[str]:
        async with AsyncClient(service_url) as client:
            answers = await asyncio.gather(*(client.predict(text) for text in texts))
            assert await client.ready()
            assert len(await client.models()) == 3
            assert (await client.compare("good")).agreement in (0.0, 1.0)
            return [answer.predictions[0].label for answer in answers]

    with Client(service_url) as client:
        assert asyncio.run(scenario()) == [one.label for one in client.predict(texts).predictions]


class Through(httpx.BaseTransport):
    """Carries requests to an app that runs in this process."""

    def __init__(self, app: TestClient) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._app.request(request.method, str(request.url), content=request.read(), headers=request.headers)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def test_an_admin_lists_loads_and_unloads(
    admin_client: TestClient, models_folder: Path, write_bundle: Callable[..., Path]
) -> None:
    write_bundle(models_folder, variant="broken", golden_off_by=1.0)
    key = admin_client.headers.pop("X-API-Key")
    with Client("http://here", api_key=key, transport=Through(admin_client)) as client:
        assert [(one.variant, one.state, one.version) for one in client.folder()] == [
            ("broken", "unloaded", None), ("dense", "ready", "0123456789ab"), ("sparse", "ready", "0123456789ab"),
        ]  # fmt: skip
        unloaded = client.unload("reviews", "sparse")
        assert (unloaded.former_version, unloaded.gone) == ("0123456789ab", True)
        assert [(one.variant, one.state) for one in client.models()] == [("dense", "ready"), ("sparse", "unloaded")]
        loaded = client.load("reviews", "sparse")
        assert (loaded.version, loaded.former_version) == ("0123456789ab", None)
        assert client.load("reviews", "sparse").former_version == "0123456789ab"
        with pytest.raises(RefusedError, match="variant reviews/broken did not load") as caught:
            client.load("reviews", "broken")
        assert caught.value.status == 409
        with pytest.raises(RefusedError, match="there is no model '..'"):
            client.load("..", "sparse")
    with Client("http://here", transport=Through(admin_client)) as client, pytest.raises(RefusedError) as caught:
        client.folder()
    assert caught.value.status == 401


def test_an_admin_of_a_process(admin_service) -> None:
    key = admin_service.headers["X-API-Key"]

    async def scenario() -> None:
        async with AsyncClient(admin_service.url, api_key=key) as client:
            assert (await client.load("reviews", "sparse")).former_version is None
            assert (await client.predict("good", variant="sparse")).version == "0123456789ab"
            assert (await client.unload("reviews", "sparse")).gone
            states = {(one.model, one.variant): one.state for one in await client.folder()}
            assert states["reviews", "sparse"] == "unloaded"

    asyncio.run(scenario())


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_documents_run(name: str, service_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    block = EXAMPLES[name]
    if "tritonclient" in block:
        pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    here = block.replace("localhost:8000", service_url.removeprefix("http://")).replace('"demo.', '"reviews.')
    exec(compile(here, name, "exec"), {"__name__": "example"})
    assert re.search("negative|positive", capsys.readouterr().out)


def test_the_documents_have_examples() -> None:
    assert len(EXAMPLES) == 3
