"""A real Ray on this machine, run by hand where Ray is installed: replicas die, bundles change, nothing is lost."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from service.cluster.planning import Plan, plan
from service.cluster.settings import ClusterSettings
from service.cluster.versions import read_versions
from sparsebert.client import Client
from sparsebert.errors import BundleError, ConfigError

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="ray is not installed (pip install 'sparsebert[cluster]')"
    ),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
NUM_TEXTS = 100  # what all clients ask for at the same time fits into the queue of one replica
TEXTS = ["the good film"] * NUM_TEXTS
NUM_CLIENTS = 8


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@dataclass
class Cluster:
    """A running Ray, and a models folder that is served on it."""

    settings: ClusterSettings
    write_bundle: object
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.settings.port}"

    def planned(self, **changes: object) -> Plan:
        settings = self.settings.model_copy(update=changes)
        return plan(settings, read_versions(settings))

    def replicas(self, deployment: str = "front") -> list[psutil.Process]:
        """The processes of a deployment."""
        title = f"ray::ServeReplica:sparsebert:{deployment}"
        return [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[0].startswith(title)]

    def counters(self, name: str, client: httpx.Client) -> dict[str, float]:
        """What each replica has counted of a metric."""
        told: Counter[str] = Counter()
        for line in client.get("/metrics").raise_for_status().text.splitlines():
            if line.startswith(f"{name}{{"):
                told[line.split('replica="')[1].split('"')[0]] += float(line.rsplit(" ", 1)[1])
        return dict(told)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, write_bundle) -> Iterator[Cluster]:
    os.environ["RAY_AUTH_MODE"] = "disabled"  # before Ray is imported; the cluster listens to this machine alone
    from service.cluster import on_ray

    folder = tmp_path_factory.mktemp("clustered") / "models"
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    address = f"127.0.0.1:{free_port()}"
    with running_ray(address):
        settings = ClusterSettings(models=folder, port=free_port(), ray=address, ray_replicas=2, ray_cpus=0.3)
        with on_ray.connected(settings):
            on_ray.deploy(plan(settings, read_versions(settings)))
            yield Cluster(settings, write_bundle)
            on_ray.serve.shutdown()


@contextmanager
def running_ray(address: str) -> Iterator[None]:
    """As an operator starts one, who has never heard of the service."""
    command = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={address.split(':')[1]}",
        "--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats",
        "--object-store-memory=80000000",
    ]  # fmt: skip
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            next(line for line in process.stdout if "--block" in line)
            yield
        finally:
            process.terminate()


@dataclass
class Load:
    """Clients that ask again and again without ever trying twice, and what they were told."""

    url: str
    variant: str
    answers: list[httpx.Response] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    answered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.ended.is_set():
                self.answers.append(client.post("/v1/predict", json={"inputs": TEXTS, "variant": self.variant}))
                self.answered.release()

    def wait_for(self, num_answers: int) -> None:
        for _ in range(num_answers):
            assert self.answered.acquire(timeout=60)


@contextmanager
def load(url: str, variant: str = "dense") -> Iterator[Load]:
    running = Load(url, variant)
    threads = [threading.Thread(target=running.ask) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running.ended.set()
        for thread in threads:
            thread.join()


def test_counters_of_all_replicas_add_up(cluster):
    with httpx.Client(base_url=cluster.url) as client:
        before = cluster.counters("sparsebert_inference_inputs_total", client)
        for _ in range(40):
            client.post("/v1/predict", json={"inputs": ["good film", "bad film"]}).raise_for_status()
        after = cluster.counters("sparsebert_inference_inputs_total", client)
    assert set(before) == set(after)
    assert len(after) == 2
    assert sum(after.values()) - sum(before.values()) == 80
    assert all(after[name] > before[name] for name in after)


def test_a_replica_that_is_killed_under_load_loses_what_it_had_and_nothing_else(cluster):
    with load(cluster.url) as running:
        running.wait_for(3 * NUM_CLIENTS)
        cluster.replicas()[0].send_signal(signal.SIGKILL)
        running.wait_for(10 * NUM_CLIENTS)
    lost = [answer for answer in running.answers if answer.status_code != 200]
    assert 1 <= len(lost) <= NUM_CLIENTS
    assert {answer.status_code for answer in lost} == {503}
    for answer in lost:
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"] == "the replica that had the request is gone; send it again"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    good = [answer for answer in running.answers if answer.status_code == 200]
    assert {len(answer.json()["predictions"]) for answer in good} == {NUM_TEXTS}


def test_a_client_that_asks_again_sees_nothing_of_it(cluster):
    labels: list[int] = []
    begun = threading.Semaphore(0)

    def ask() -> None:
        with Client(cluster.url, timeout_s=60) as client:
            for _ in range(20):
                labels.append(len(client.predict(TEXTS, variant="dense").predictions))
                begun.release()

    threads = [threading.Thread(target=ask) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for _ in range(2 * NUM_CLIENTS):
        assert begun.acquire(timeout=60)
    cluster.replicas()[0].send_signal(signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert labels == [NUM_TEXTS] * 20 * NUM_CLIENTS


def replace(cluster: Cluster, tmp_path: Path, **bundle: object) -> None:
    """A new bundle in the place of the sparse one."""
    written = cluster.write_bundle(tmp_path / "new", variant="sparse", **bundle)
    place = cluster.settings.models / "reviews" / "sparse"
    place.rename(tmp_path / "former")
    written.rename(place)


def test_a_bundle_changes_under_load_and_no_request_fails(cluster, tmp_path):
    from service.cluster import on_ray

    with load(cluster.url, "sparse") as running:
        running.wait_for(2 * NUM_CLIENTS)
        replace(cluster, tmp_path, seed=5, version="ba9876543210")
        told = on_ray.deploy(cluster.planned())
        running.wait_for(2 * NUM_CLIENTS)
    assert {one.versions["reviews/sparse"] for one in told} == {"ba9876543210"}
    assert Counter(answer.status_code for answer in running.answers).keys() == {200}
    assert {answer.json()["version"] for answer in running.answers} == {"0123456789ab", "ba9876543210"}
    assert {answer.json()["version"] for answer in running.answers[-NUM_CLIENTS:]} == {"ba9876543210"}


def test_a_bundle_that_is_bad_changes_nothing_and_is_told(cluster, tmp_path):
    from service.cluster import cli, on_ray

    served = {one.versions["reviews/sparse"] for one in on_ray.deploy(cluster.planned())}
    replace(cluster, tmp_path, seed=6, version="00000000000f", golden_off_by=1.0)
    planned = cluster.planned()
    with load(cluster.url, "sparse") as running:
        with pytest.raises(
            BundleError, match=r"cannot serve this: on \S+: reviews/sparse did not load: .*computes som"
        ):
            on_ray.deploy(planned)
        running.wait_for(NUM_CLIENTS)
    assert Counter(answer.status_code for answer in running.answers).keys() == {200}
    assert {answer.json()["version"] for answer in running.answers} == served
    place = cluster.settings.models / "reviews" / "sparse"
    place.rename(tmp_path / "bad")
    (tmp_path / "former").rename(place)
    assert cli.differences(cluster.planned(), on_ray.deploy(cluster.planned())) == []


def test_bundles_are_not_changed_one_replica_at_a_time(cluster):
    answer = httpx.post(f"{cluster.url}/v2/repository/models/reviews/load")
    assert (answer.status_code, answer.json()["error"][:24]) == (403, "loading and unloading ov")


def test_each_variant_has_replicas_of_its_own(cluster):
    from service.cluster import on_ray

    on_ray.deploy(cluster.planned(ray_per_variant=True, ray_replicas=1))
    name = "sparsebert_http_requests_total"
    with httpx.Client(base_url=cluster.url) as client:
        before = cluster.counters(name, client)
        for variant in ("dense", "sparse", "sparse"):
            assert client.post("/v1/predict", json={"inputs": "good", "variant": variant}).json()["variant"] == variant
        compared = client.post("/v1/compare", json={"inputs": "good film"}).raise_for_status().json()
        refused = client.post("/v1/predict", json={"inputs": "good", "variant": "sparce"})
        after = cluster.counters(name, client)
    grown = {replica.split("#")[0]: after[replica] - before[replica] for replica in after}
    assert grown["reviews:dense"] == 1
    assert grown["reviews:sparse"] == 2
    assert grown["front"] == 3  # the comparison, the refusal, and the first look at the metrics
    assert set(compared["variants"]) == {"dense", "sparse"}
    assert refused.json()["error"] == "model 'reviews' has no variant 'sparce'; it has dense, sparse"


def test_a_variants_replica_that_is_killed_is_told_by_the_front(cluster):
    from service.cluster import on_ray

    on_ray.deploy(cluster.planned(ray_per_variant=True, ray_replicas=1))
    with load(cluster.url, "dense") as running:
        running.wait_for(2 * NUM_CLIENTS)
        cluster.replicas("reviews:dense")[0].send_signal(signal.SIGKILL)
        running.wait_for(4 * NUM_CLIENTS)
    lost = [answer for answer in running.answers if answer.status_code != 200]
    assert {answer.status_code for answer in lost} == {503}
    assert all(answer.headers["retry-after"] == "1" for answer in lost)


def test_replicas_are_added_under_load(cluster):
    from service.cluster import on_ray

    on_ray.deploy(cluster.planned(ray_replicas=1, ray_max_replicas=2, ray_target_requests=1.0))
    assert len(cluster.replicas()) == 1
    with load(cluster.url) as running:
        while len(cluster.replicas()) < 2:  # Ray waits for half a minute
            running.wait_for(NUM_CLIENTS)
    assert {answer.status_code for answer in running.answers} == {200}


def test_a_folder_without_a_bundle_is_told_with_the_machine(cluster, tmp_path):
    from service.cluster import on_ray

    planned = cluster.planned()
    planned.front.settings["models"] = str(tmp_path / "nothing")
    with pytest.raises(
        BundleError, match=r"the cluster cannot serve this: on \S+: there is no models folder .*nothing"
    ):
        on_ray.deploy(planned)


def test_another_port_than_that_of_the_proxies_is_refused(cluster):
    from service.cluster import on_ray

    with pytest.raises(ConfigError, match=f"its proxies have port {cluster.settings.port}; give --host, --port"):
        on_ray.deploy(cluster.planned(port=free_port()))


def test_an_address_without_a_cluster_is_told(cluster):
    from service.cluster import on_ray

    nowhere = cluster.settings.model_copy(update={"ray": f"127.0.0.1:{free_port()}"})
    with (
        pytest.raises(ConfigError, match="cannot be had: .*; give the address of a running cluster"),
        on_ray.connected(nowhere),
    ):
        pass


def test_a_config_file_names_an_application(cluster):
    from service.cluster import on_ray

    built = on_ray.application({"models": str(cluster.settings.models), "ray_per_variant": True})
    assert built._bound_deployment.name == "front"
    with pytest.raises(ConfigError, match="there is no setting 'replicas'; the settings are models, host, "):
        on_ray.application({"replicas": 2})
