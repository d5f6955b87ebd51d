"""A real Prometheus, with the configuration and rules of deploy/prometheus, that watches a real service under load."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from benchmarks.service_process import started
from tiny_bundles import write_tiny_bundle

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "deploy" / "prometheus"
WAIT_S, PAUSE_S = 60, 0.1
# Each has its own logits, so that variants do not always agree.
SEEDS = {"dense": 0, "sparse": 1, "sparse-int8": 2}
LONG = "very " * 20 + "good film"


@dataclass(frozen=True)
class Sample:
    """One series, and what it tells now."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    client: httpx.Client
    _paused: threading.Event = field(default_factory=threading.Event)

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of its API; what it refuses fails with its reason."""
        answer = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", f"{answer['error']}: {parameters}"
        return answer["data"]

    def query(self, expr: str) -> list[Sample]:
        """The series of an expression, as it is now."""
        data = self.ask("query", query=expr)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def wait_for(self, expr: str) -> list[Sample]:
        """The same, as soon as one of them is a number; fails when none comes."""
        return self.wait(lambda: self.query(expr), lambda found: any(not isnan(one.value) for one in found), expr)

    def wait(self, ask: Callable[[], Any], enough: Callable[[Any], bool], wanted: str) -> Any:
        """What `ask` tells, as soon as it is `enough`."""
        for _ in range(int(WAIT_S / PAUSE_S)):
            found = ask()
            if enough(found):
                return found
            self._paused.wait(PAUSE_S)
        pytest.fail(f"within {WAIT_S} s there was nothing like {wanted}; at last: {found}")


def find_tool(name: str) -> str:
    """The path of one of Prometheus' programs; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: `make system-deps` installs it on Debian")
    return found


def configuration(service_url: str, folder: Path) -> Path:
    """That of deploy/prometheus, about another target, and asked and evaluated each second."""
    config = yaml.safe_load((CONFIG / "prometheus.yml").read_text().replace("/etc/prometheus", str(CONFIG)))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [urlsplit(service_url).netloc]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return folder / "prometheus.yml"


@contextmanager
def watching(service_url: str, folder: Path) -> Iterator[Prometheus]:
    """A server of Prometheus on a free port."""
    command = [find_tool("prometheus"), "--config.file", configuration(service_url, folder)]
    flags = ["--storage.tsdb.path", folder / "data", "--web.listen-address", "127.0.0.1:0"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            log = ""
            for line in process.stderr:
                log += line
                if "Server is ready" in line:
                    break
            address = re.search(r'"Listening on".* address=(\S+)', log)
            assert address, log
            with httpx.Client(base_url=f"http://{address[1]}", timeout=WAIT_S) as client:
                yield Prometheus(client)
        finally:
            process.kill()


def ask_for_everything(client: httpx.Client) -> None:
    """One request of each type that moves a series, so that none is counted in vain."""
    for variant in SEEDS:
        texts = ["the good film", "a very bad plot", LONG]
        predict = {"inputs": texts, "variant": variant, "truncate": True}
        client.post("/v1/predict", json=predict).raise_for_status()
    compare = {"inputs": ["the good film", "not a bad plot", "awful", "a fine film"]}
    client.post("/v1/compare", json=compare).raise_for_status()
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["the good film"]}
    client.post("/v2/models/reviews/infer", json={"inputs": [tensor]}).raise_for_status()
    assert client.post("/v1/predict", json={"inputs": LONG}).status_code == 422
    assert client.post("/v1/predict", json={"inputs": ""}).status_code == 400


@contextmanager
def load(service_url: str) -> Iterator[None]:
    """Requests, over and over, while the block runs."""
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service_url, timeout=WAIT_S) as client:
            while not stop.wait(PAUSE_S):
                ask_for_everything(client)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Finds one of Prometheus' programs."""
    return find_tool


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Watches `reviews` with the variants dense, sparse and sparse-int8, which are asked all the time.

    Use it in one file only: pytest-xdist gives each file to one process, and each process starts its own.
    """
    find_tool("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    for variant, seed in SEEDS.items():
        write_tiny_bundle(folder / "models", variant=variant, seed=seed)
    with (
        started(folder / "models", "--threads", "1", "--default-variant", "reviews/dense") as service,
        load(service.url),
        watching(service.url, folder) as server,
    ):
        server.wait_for("rate(sparsebert_experiment_pairs_total[1m]) > 0")
        yield server
