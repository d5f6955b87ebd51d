"""What do clients lose when a replica is killed under load?"""

import signal
import threading

from ray_cluster import NUM_CLIENTS, NUM_TEXTS, ON_RAY, TEXTS, load
from sparsebert.client import Client

pytestmark = ON_RAY


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
