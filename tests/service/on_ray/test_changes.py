"""What do clients see when a bundle changes under load, or is bad?"""

from collections import Counter
from pathlib import Path

import httpx
import pytest

from ray_cluster import NUM_CLIENTS, ON_RAY, Cluster, load
from sparsebert.errors import BundleError

pytestmark = ON_RAY


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
