"""How does a replica call the app where no web server does? Needs no Ray."""

import asyncio
import json

import pytest

from asgi_messages import begin
from service.cluster.calling import Answered, Asked, call, without_request_id
from service.cluster.replica import Replica, Told
from service.errors import NotReadyError
from service.routing import VariantName
from service.settings import Settings
from sparsebert.errors import BundleError


def test_an_app_hears_that_a_client_left_when_its_request_is_cancelled():
    heard: list[str] = []

    async def app(scope, receive, send):
        heard.append((await receive())["type"])
        asked.set()
        heard.append((await receive())["type"])

    async def receive():
        return {"type": "http.request", "body": b"x"}

    async def leave():
        running = asyncio.ensure_future(call(app, {"type": "http"}, receive, None))
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asked = asyncio.Event()
    asyncio.run(leave())
    assert heard == ["http.request", "http.disconnect"]


def test_the_app_of_a_replica_answers_messages(models_folder):
    async def ask() -> tuple[list[Answered], bytes, Told]:
        replica = await Replica.open(Settings(models=models_folder, threads=1), "front#1", own, {})
        gathered.append(replica)
        try:
            replica.check_health()
            post, headers = "POST", [(b"x-request-id", b"seven")]
            sent = json.dumps({"inputs": "good film", "variant": "sparse"}).encode()
            answers = [
                await replica.answer(Asked(method=post, path="/v1/predict", headers=headers, body=sent)),
                await replica.answer(Asked(method="GET", path="/metrics", headers=[], body=b"")),
                await replica.answer(
                    Asked(method=post, path="/v2/repository/models/reviews/load", headers=headers, body=b"")
                ),
            ]
            return answers, await replica.numbers(), replica.told()
        finally:
            await replica.close()

    async def own() -> bytes:
        return await gathered[0].numbers()

    gathered: list[Replica] = []
    [predicted, metrics, refused], numbers, told = asyncio.run(ask())
    assert (predicted.status, json.loads(predicted.body)["variant"]) == (200, "sparse")
    assert (b"x-request-id", b"seven") in predicted.headers
    assert b'sparsebert_inference_inputs_total{replica="front#1",model="reviews",variant="sparse"} 1.0' in metrics.body
    assert b'{replica="front#1"' in numbers
    assert refused.status == 403
    assert told == Told(
        deployment="front",
        replica="front#1",
        versions={"reviews/dense": "0123456789ab", "reviews/sparse": "0123456789ab"},
    )


def test_a_replica_does_not_start_with_a_bundle_that_fails(models_folder, write_bundle):
    write_bundle(models_folder, variant="wrong", golden_off_by=1.0)

    async def own() -> bytes:
        return b""

    with pytest.raises(BundleError, match="reviews/wrong did not load: reviews/wrong computes something else"):
        asyncio.run(Replica.open(Settings(models=models_folder, threads=1), "front#1", own, {}))


def test_a_dead_batcher_is_no_healthy_replica(models_folder):
    async def ask() -> None:
        replica = await Replica.open(Settings(models=models_folder, threads=1), "front#1", own, {})
        replica._serving.variants[VariantName(model="reviews", variant="dense")].batcher.close()
        try:
            with pytest.raises(NotReadyError, match="the workers of reviews/dense are dead"):
                replica.check_health()
        finally:
            await replica.close()

    async def own() -> bytes:
        return b""

    asyncio.run(ask())


def test_rays_proxy_says_the_id_itself():
    async def keep(message):
        kept.append(message)

    kept: list[dict] = []
    pass_on = without_request_id(keep)
    asyncio.run(pass_on(begin(200, (b"x-request-id", b"seven"), (b"etag", b"1"))))
    assert kept == [begin(200, (b"etag", b"1"))]
