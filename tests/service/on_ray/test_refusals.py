"""What is told of a cluster that cannot serve what it is given?"""

import pytest

from ray_cluster import ON_RAY, free_port
from sparsebert.errors import BundleError, ConfigError

pytestmark = ON_RAY


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


def test_a_serve_that_does_not_start_is_told_with_where_its_logs_are(cluster, monkeypatch):
    """A double: what kills Ray's controller differs from one machine to the next."""
    from ray.exceptions import ActorDiedError

    from service.cluster import on_ray

    def die(**_):
        raise ActorDiedError

    monkeypatch.setattr(on_ray.serve, "start", die)
    with pytest.raises(
        ConfigError,
        match=r"Ray Serve does not start on this cluster: The actor died unexpectedly before finishing this task\. Why",
    ):
        on_ray.deploy(cluster.planned())


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
