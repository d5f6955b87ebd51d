"""What do several replicas count, who serves which variant, and when are there more of them?"""

import httpx

from ray_cluster import NUM_CLIENTS, ON_RAY, load

pytestmark = ON_RAY


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


def test_replicas_are_added_under_load(cluster):
    from service.cluster import on_ray

    on_ray.deploy(cluster.planned(ray_replicas=1, ray_max_replicas=2, ray_target_requests=1.0))
    assert len(cluster.replicas()) == 1
    with load(cluster.url) as running:
        while len(cluster.replicas()) < 2:  # Ray waits for half a minute
            running.wait_for(NUM_CLIENTS)
    assert {answer.status_code for answer in running.answers} == {200}
