"""A real Ray on this machine, the service on it, and clients that ask; for tests run by hand where Ray is installed."""

import importlib.util
import os
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

ON_RAY = [
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
