"""What is a cluster told to run, and what is it refused? Needs no Ray."""

import importlib.util
import json
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from service.arguments import read
from service.cli import main as serve
from service.cluster import cli
from service.cluster.planning import Plan, plan
from service.cluster.reaching import reach
from service.cluster.replica import Told
from service.cluster.settings import ClusterSettings
from service.cluster.versions import read_versions
from service.cluster.words import asks_for_cluster, with_address
from service.routing import VariantName
from service.settings import Settings
from sparsebert.errors import BundleError, ConfigError, MissingExtraError

DENSE, SPARSE = VariantName(model="demo", variant="dense"), VariantName(model="demo", variant="sparse")
VERSIONS = {DENSE: "a" * 12, SPARSE: "b" * 12}


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
        ([], {"sparsebert_ray": "auto"}, True, []),
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


class HungUp:
    """Ray's part that the command knows, of a cluster whose command gets SIGHUP while replicas start."""

    def connected(self, settings: ClusterSettings) -> AbstractContextManager[None]:
        return nullcontext()

    def cpus(self) -> float:
        return 8.0

    def deploy(self, planned: Plan) -> list[Told]:
        signal.raise_signal(signal.SIGHUP)
        return []


@pytest.fixture
def own_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: pytest.fail("nobody heard it")) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_hangup_of_the_command_is_told_and_ends_nothing(models_folder, monkeypatch, caplog):
    monkeypatch.setattr(cli, "import_ray", HungUp)
    cli.main(["--ray", "auto", "--models", str(models_folder), "--api-keys", "keys.jsonl"], {})
    assert "replicas read their keys when they start; to replace them run `sparsebert serve --ray` again" in caplog.text


@pytest.mark.usefixtures("own_signals")
def test_a_hangup_of_the_command_without_keys_does_what_it_always_does(models_folder, monkeypatch):
    monkeypatch.setattr(cli, "import_ray", HungUp)
    with pytest.raises(pytest.fail.Exception, match="nobody heard it"):
        cli.main(["--ray", "auto", "--models", str(models_folder)], {})


def test_replicas_get_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.absolute(ClusterSettings()) == {"models": tmp_path / "models"}
    assert cli.absolute(ClusterSettings(api_keys="keys")) == {
        "models": tmp_path / "models",
        "api_keys": f"{tmp_path}/keys",
    }
