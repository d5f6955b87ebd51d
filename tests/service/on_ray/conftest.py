"""The service on a Ray of its own, for each file of tests."""

import os
from collections.abc import Iterator

import pytest

from ray_cluster import Cluster, free_port, running_ray
from service.cluster.planning import plan
from service.cluster.settings import ClusterSettings
from service.cluster.versions import read_versions


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
