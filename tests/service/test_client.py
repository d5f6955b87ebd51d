"""The typed client against a real process, and the Python examples of the documents, run as they stand."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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
