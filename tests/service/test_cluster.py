"""What needs no Ray: what the cluster is told, who a request is for, what clients see, how metrics are gathered."""

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.arguments import read
from service.catalog import Catalog, FailedBundle
from service.cli import main as serve
from service.cluster import cli
from service.cluster.calling import Answered, Asked, call, without_request_id
from service.cluster.forwarding import Forwarding, choose
from service.cluster.gathering import labelled, merged
from service.cluster.planning import Plan, plan
from service.cluster.proxy import Retriable, middlewares
from service.cluster.reaching import reach
from service.cluster.replica import Replica, Told
from service.cluster.settings import ClusterSettings
from service.cluster.versions import read_versions
from service.cluster.words import asks_for_cluster, with_address
from service.errors import NotReadyError, QueueFullError
from service.keys import KeyRing, Scope, make_key
from service.routing import VariantName
from service.settings import Settings
from sparsebert.errors import BundleError, ConfigError, MissingExtraError

DENSE, SPARSE = VariantName(model="demo", variant="dense"), VariantName(model="demo", variant="sparse")
VERSIONS = {DENSE: "a" * 12, SPARSE: "b" * 12}
CATALOG = Catalog(
    loaded=(), failed=(FailedBundle(name=DENSE, error=""), FailedBundle(name=SPARSE, error="")), defaults=(DENSE,)
)


def planned(**values: object) -> Plan:
    return plan(ClusterSettings(**values), VERSIONS)


@pytest.mark.parametrize(
    ("arguments", "environment", "asks", "words"),
    [
        (["--port", "80"], {}, False, ["--port", "80"]),
        (["--ray"], {}, True, ["--ray", "local"]),
        (["--ray", "--port", "80"], {}, True, ["--ray", "local", "--port", "80"]),
        (["--ray", "10.0.0.7:6379"], {}, True, ["--ray", "10.0.0.7:6379"]),
        (["--ray=auto"], {}, True, ["--ray=auto"]),
        ([], {"SPARSEBERT_RAY": "auto"}, True, []),
        (["--ray-replicas", "2"], {}, False, ["--ray-replicas", "2"]),
    ],
)
def test_a_command_line_asks_for_a_cluster(arguments, environment, asks, words):
    assert asks_for_cluster(arguments, environment) is asks
    assert with_address(arguments) == words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--ray-replicas", "3", "--ray-max-replicas", "2"],
            "--ray-max-replicas is 2: it must be at least --ray-replicas, 3, or 0",
        ),
        (
            ["--device", "cuda"],
            "--device cuda needs GPUs, and --ray-gpus is 0; give a replica 1, or a part",
        ),
        (
            ["--device", "cuda", "--ray-gpus", "1", "--device-id", "1"],
            "--device-id is 1, and Ray chooses the GPU of a replica; leave it out",
        ),
        (["--port", "0"], "--port is 0: on a cluster every machine listens on the same one; choose it"),
        (["--dry-run"], "--dry-run tests this machine alone; leave --ray out"),
        (["--ray-cpus", "0"], "--ray-cpus (SPARSEBERT_RAY_CPUS) is '0': it must be a number above 0 to 256"),
    ],
)
def test_what_a_cluster_cannot_have_is_refused(arguments, sentence):
    with pytest.raises(ConfigError) as refused:
        read(ClusterSettings, arguments, {})
    assert str(refused.value) == sentence


def test_the_front_is_told_what_one_process_would_be():
    told = planned(
        models=Path("/models"), port=81, ray_replicas=2, ray_cpus=2.5, drain_timeout_s=4, default_variant="sparse"
    )
    assert Settings(**told.front.settings) == Settings(
        models=Path("/models"), port=81, threads=2, drain_timeout_s=4, default_variant="sparse"
    )
    assert json.loads(json.dumps(told.front.settings)) == told.front.settings
    assert told.front.versions == {"demo/dense": "a" * 12, "demo/sparse": "b" * 12}
    assert told.front.options == {
        "num_replicas": 2,
        "max_ongoing_requests": 1024,
        "max_queued_requests": 1024,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        "health_check_period_s": 2.0,
        "graceful_shutdown_timeout_s": 5.0,
        "max_constructor_retry_count": 3,
        "ray_actor_options": {"num_cpus": 2.5, "num_gpus": 0.0},
        "logging_config": {"enable_access_log": False},
    }
    assert told.http_options == {"host": "127.0.0.1", "port": 81, "request_timeout_s": 32.0}
    assert (told.names, told.num_replicas) == (["front"], 2)


def test_replicas_are_scaled_where_there_may_be_more():
    front = planned(ray_replicas=2, ray_max_replicas=5, ray_target_requests=12).front
    assert "num_replicas" not in front.options
    assert front.options["autoscaling_config"] == {
        "min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 12.0,
    }  # fmt: skip
    assert front.num_replicas == 2
    assert planned(ray_replicas=5, ray_max_replicas=5).front.options["num_replicas"] == 5


def test_each_variant_gets_a_deployment_that_serves_it_alone():
    told = planned(ray_per_variant=True, ray_replicas=2, default_variant="sparse")
    assert told.names == ["front", "demo:dense", "demo:sparse"]
    assert told.num_replicas == 6
    sparse = told.variants["demo/sparse"]
    assert (sparse.settings["variants"], sparse.settings["default_variant"]) == (["demo/sparse"], "")
    assert sparse.versions == {"demo/sparse": "b" * 12}
    assert told.front.settings["variants"] == []


def test_versions_of_the_models_folder(models_folder):
    settings = ClusterSettings(models=models_folder, variants=("sparse",))
    assert read_versions(settings) == {VariantName(model="reviews", variant="sparse"): "0123456789ab"}
    with pytest.raises(BundleError, match="there is no models folder"):
        read_versions(ClusterSettings(models=models_folder / "x"))


def test_replicas_that_serve_something_else_are_told():
    told = [
        Told(deployment="front", replica="front#1", versions={"demo/dense": "a" * 12, "demo/sparse": "b" * 12}),
        Told(deployment="front", replica="front#2", versions={"demo/dense": "a" * 12, "demo/sparse": "c" * 12}),
        Told(deployment="front", replica="front#3", versions={"demo/sparse": "b" * 12}),
    ]
    assert cli.differences(planned(), told) == [
        "front#2 serves cccccccccccc of demo/sparse, not bbbbbbbbbbbb",
        "front#3 serves no of demo/dense, not aaaaaaaaaaaa",
    ]


def test_nothing_listens_at_an_address():
    with pytest.raises(OSError, match="refused"):
        reach("127.0.0.1:1")
    reach("auto")
    reach("local")


@pytest.mark.parametrize(
    "words", [["--ray-replicas", "2"], ["--ray-replicas=2"], ["--models", "m", "--ray-replicas=2"]]
)
def test_flags_of_a_cluster_without_one_are_told(words):
    with pytest.raises(ConfigError, match="^--ray-replicas is of a cluster; add --ray, or leave it out$"):
        serve(words)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_a_missing_ray_is_told_with_its_extra(models_folder):
    with pytest.raises(MissingExtraError, match=r"--ray needs: pip install 'sparsebert\[cluster\]', on every machine"):
        serve(["--ray", "--models", str(models_folder)])


def test_replicas_without_room_are_refused_here_and_may_wait_elsewhere(caplog):
    settings = ClusterSettings(ray_replicas=3, ray_cpus=0.5)
    cli.check_room(settings, plan(settings, VERSIONS), 1.5)
    with pytest.raises(ConfigError, match=r"^3 replicas of 0.5 CPUs need 1.5, and Ray has 1; lower --ray-cpus or"):
        cli.check_room(settings, plan(settings, VERSIONS), 1.0)
    there = settings.model_copy(update={"ray": "auto"})
    cli.check_room(there, plan(there, VERSIONS), 1.0)
    assert "or add machines: until then replicas wait" in caplog.text


def test_replicas_get_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.absolute(ClusterSettings()) == {"models": tmp_path / "models"}
    assert cli.absolute(ClusterSettings(api_keys="keys")) == {
        "models": tmp_path / "models",
        "api_keys": f"{tmp_path}/keys",
    }


# What clients see when Ray ends a request.


def proxied(*messages: dict) -> tuple[int, dict, dict]:
    """Status, headers and document of a request that Ray answers so."""

    async def ray(scope, receive, send):
        for message in messages:
            await send(message)

    [around] = middlewares()
    assert around.cls is Retriable
    answered = TestClient(Retriable(ray)).get("/v1/models", headers={"x-request-id": "seven"})
    return answered.status_code, dict(answered.headers), answered.json()


def begin(status: int, *headers: tuple[bytes, bytes]) -> dict:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(text: bytes) -> dict:
    return {"type": "http.response.body", "body": text}


@pytest.mark.parametrize(
    ("messages", "status", "sentence", "again"),
    [
        ([], 503, "the replica that had the request is gone; send it again", "1"),
        (
            [begin(408), body(b"Request timed out")], 504,
            "no replica answered in time; send fewer texts at a time, or have --request-timeout-s raised", None,
        ),
        ([begin(429), body(b"x")], 429, "all replicas have as much to do as they take; try again later", "1"),
        ([begin(503), body(b"x"), body(b"y")], 503, "no replica is there; try again later", "1"),
    ],
)  # fmt: skip
def test_what_ray_ends_is_told_as_the_service_does(messages, status, sentence, again):
    seen, headers, document = proxied(*messages)
    assert (seen, document) == (status, {"error": sentence, "request_id": "seven"})
    assert headers.get("retry-after") == again
    assert (headers["x-request-id"], headers["x-content-type-options"]) == ("seven", "nosniff")


def test_what_a_replica_answers_stays_as_it_is():
    ours = begin(503, (b"x-content-type-options", b"nosniff"), (b"content-type", b"application/json"))
    assert proxied(ours, body(b'{"error": "the service is stopping"}'))[::2] == (
        503,
        {"error": "the service is stopping"},
    )


def test_an_odd_request_id_does_not_reach_ray():
    async def ray(scope, receive, send):
        seen.extend(value for name, value in scope["headers"] if name == b"x-request-id")

    seen: list[bytes] = []
    answered = TestClient(Retriable(ray)).get("/", headers={"x-request-id": "no word"})
    assert [answered.headers["x-request-id"].encode()] == seen
    assert seen != [b"no word"]


def test_paths_of_ray_itself_stay_as_they_are():
    async def ray(scope, receive, send):
        await send(begin(503))
        await send(body(b"draining"))

    assert TestClient(Retriable(ray)).get("/-/healthz").text == "draining"


# Calling the app where no web server does.


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


# Who a request is for.


def scope_of(path: str, *headers: tuple[bytes, bytes], method: str = "POST") -> dict:
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


@pytest.mark.parametrize(
    ("path", "sent", "name"),
    [
        ("/v1/predict", {"inputs": "x"}, DENSE),
        ("/v1/predict", {"inputs": "x", "variant": "sparse"}, SPARSE),
        ("/v1/predict", {"inputs": "x", "model": "demo", "variant": "sparse"}, SPARSE),
        ("/v1/predict", {"inputs": "x", "variant": "sparce"}, None),
        ("/v1/predict", {"inputs": "x", "variant": 7}, None),
        ("/v1/predict", ["x"], None),
        ("/v2/models/demo/infer", {"inputs": []}, DENSE),
        ("/v2/models/demo.sparse/infer", {"inputs": []}, SPARSE),
        ("/v2/models/demo/versions/sparse/infer", {}, SPARSE),
        ("/v2/models/demo/infer", {"parameters": {"variant": "sparse"}}, SPARSE),
        ("/v2/models/demo.dense/infer", {"parameters": {"variant": "sparse"}}, None),
        ("/v2/models/other/infer", {}, None),
    ],
)
def test_the_variant_of_a_request(path, sent, name):
    assert choose(scope_of(path), json.dumps(sent).encode(), CATALOG) == name


def test_a_variant_of_a_request_in_binary():
    length = (b"inference-header-content-length", b"0")
    assert choose(scope_of("/v2/models/demo.sparse/infer", length), b"\xff\x00", CATALOG) == SPARSE
    assert choose(scope_of("/v2/models/demo.sparse/infer", (length[0], b"9")), b"\xff\x00", CATALOG) is None


@given(st.binary())
def test_no_body_makes_choosing_fail(sent):
    assert choose(scope_of("/v1/predict"), sent, CATALOG) in (None, DENSE, SPARSE)
    assert choose(scope_of("/v2/models/demo/infer"), sent, CATALOG) in (None, DENSE, SPARSE)


def forwarded(sent: bytes, *, error: Exception | None = None, ring: KeyRing | None = None, max_bytes: int = 100) -> str:
    """Who answered a request to predict, or how it was refused."""

    async def here(scope, receive, send):
        message = await receive()
        await send(begin(200))
        await send(body(b"here " + message["body"]))

    async def there(asked: Asked) -> Answered:
        if error is not None:
            raise error
        return Answered(status=200, headers=[], body=b"there " + asked.body)

    app = Forwarding(
        here,
        asks={"demo/sparse": there},
        catalog=lambda: CATALOG,
        ring=ring or KeyRing(),
        max_bytes=max_bytes,
        patience_s=60,
    )
    answered = TestClient(app).post("/v1/predict", content=sent)
    return f"{answered.status_code} {answered.headers.get('retry-after')} {answered.text.split(', ')[0]}"


def test_a_request_is_handed_on_to_the_replicas_of_its_variant():
    assert forwarded(b'{"variant":"sparse"}') == '200 None there {"variant":"sparse"}'


@pytest.mark.parametrize("sent", [b'{"variant":"dense"}', b'{"variant":"x"}', b"no json", b""])
def test_what_has_no_replicas_of_its_own_is_answered_here(sent):
    assert forwarded(sent) == f"200 None here {sent.decode()}"


def test_what_is_too_large_or_has_no_key_is_refused_here():
    sent = b'{"variant":"sparse"}'
    assert forwarded(sent, max_bytes=10) == '200 None here {"variant":"sparse"}'
    _, key = make_key("shop", Scope.ADMIN, None, lambda size: "k" * size)
    assert forwarded(sent, ring=KeyRing(keys=(key,))) == '200 None here {"variant":"sparse"}'


def test_replicas_that_are_gone_or_busy_are_told():
    sent = b'{"variant":"sparse"}'
    assert forwarded(sent, error=NotReadyError("gone")) == '503 1 {"error": "gone"'
    assert forwarded(sent, error=QueueFullError("busy")) == '429 1 {"error": "busy"'


# Metrics of several replicas.

TEXT = b"""# HELP a_total What a is.
# TYPE a_total counter
a_total{x="1"} 2.0
a_total{x="}"} 3.0
# HELP b Seconds.
# TYPE b histogram
b_bucket{le="+Inf"} 4.0
b_count 4.0
b_sum 0.5
# HELP c_total None yet.
# TYPE c_total counter
"""


def test_metrics_say_whose_they_are_and_each_family_is_told_once():
    assert merged([labelled(TEXT, "front#1"), labelled(TEXT, "front#2")]).decode() == (
        "# HELP a_total What a is.\n# TYPE a_total counter\n"
        'a_total{replica="front#1",x="1"} 2.0\na_total{replica="front#1",x="}"} 3.0\n'
        'a_total{replica="front#2",x="1"} 2.0\na_total{replica="front#2",x="}"} 3.0\n'
        "# HELP b Seconds.\n# TYPE b histogram\n"
        'b_bucket{replica="front#1",le="+Inf"} 4.0\nb_count{replica="front#1"} 4.0\nb_sum{replica="front#1"} 0.5\n'
        'b_bucket{replica="front#2",le="+Inf"} 4.0\nb_count{replica="front#2"} 4.0\nb_sum{replica="front#2"} 0.5\n'
        "# HELP c_total None yet.\n# TYPE c_total counter\n"
    )


def test_prometheus_reads_what_was_merged(client):
    client.post("/v1/predict", json={"inputs": ["good film", "bad film"], "variant": "dense"})
    text = client.get("/metrics").content
    families = list(text_string_to_metric_families(merged([labelled(text, "a"), labelled(text, "b")]).decode()))
    alone = list(text_string_to_metric_families(text.decode()))
    assert [family.name for family in families] == [family.name for family in alone]
    assert sum(len(family.samples) for family in families) == 2 * sum(len(family.samples) for family in alone)
    [inputs] = [family for family in families if family.name == "sparsebert_inference_inputs"]
    dense = [sample for sample in inputs.samples if sample.labels["variant"] == "dense"]
    assert [(sample.labels["replica"], sample.value) for sample in dense] == [("a", 2.0), ("b", 2.0)]
