"""Memory of what is unloaded goes back to the system, and what lives as long as the process is left alone."""

import gc
import weakref
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from service.memory import Leaving, keep_from_collection

MB = 1_000_000
LARGE = "/v1/admin/models/large/variants/dense"
SMALL = "/v1/admin/models/reviews/variants/sparse"
Post = Callable[..., dict]


@pytest.fixture
def post(admin_service) -> Iterator[Post]:
    with httpx.Client(base_url=admin_service.url, headers=admin_service.headers, timeout=60) as connected:

        def ask(path: str, **body: str) -> dict:
            answer = connected.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield ask


@pytest.fixture
def resident(admin_service) -> Callable[[], int]:
    return lambda: psutil.Process(admin_service.process_id).memory_info().rss


def test_memory_returns_after_each_unload(resident: Callable[[], int], post: Post) -> None:
    before = resident()
    for _ in range(5):
        post(f"{LARGE}/load")
        post("/v1/predict", inputs="good", model="large")
        assert resident() > before + 60 * MB
        assert post(f"{LARGE}/unload")["gone"]
        assert resident() < before + 16 * MB


def test_loading_again_and_again_keeps_one(resident: Callable[[], int], post: Post) -> None:
    before = resident()
    for _ in range(5):
        # If the former one left meanwhile it would be far less.
        assert 60 * MB < post(f"{LARGE}/load")["memory_bytes"] < 90 * MB
    assert post(f"{LARGE}/unload")["gone"]
    assert resident() < before + 16 * MB


def test_many_changes_do_not_grow(resident: Callable[[], int], post: Post) -> None:
    for _ in range(10):
        post(f"{SMALL}/load")
        post(f"{SMALL}/unload")
    before = resident()
    for _ in range(100):
        post(f"{SMALL}/load")
        assert post(f"{SMALL}/unload")["gone"]
    assert resident() < before + 4 * MB


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_what_is_loaded_is_kept_from_collection_until_it_leaves() -> None:
    thresholds = gc.get_threshold()
    kept = Circle()
    watch, leaving = weakref.ref(kept), Leaving(kept)
    try:
        keep_from_collection()
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold()[0] == 10_000
        del kept
        gc.collect()
        assert watch() is not None
        assert leaving.give_back(pauses_s=(0.0, 0.0))
        assert watch() is None
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
