"""Memory of what is unloaded goes back to the system, and does not pile up over many loads."""

from collections.abc import Callable

import httpx
import psutil
import pytest

MB = 1_000_000
LARGE = "/v1/admin/models/large/variants/dense"
SMALL = "/v1/admin/models/reviews/variants/sparse"


@pytest.fixture
def resident(admin_service) -> Callable[[], int]:
    return lambda: psutil.Process(admin_service.process_id).memory_info().rss


@pytest.fixture
def change(admin_service) -> Callable[[str], dict]:
    def post(path: str) -> dict:
        answer = httpx.post(admin_service.url + path, headers=admin_service.headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


def test_memory_returns_after_each_unload(admin_service, resident, change) -> None:
    before = resident()
    for _ in range(5):
        change(f"{LARGE}/load")
        asked = {"inputs": "good", "model": "large"}
        answer = httpx.post(f"{admin_service.url}/v1/predict", json=asked, headers=admin_service.headers, timeout=60)
        assert answer.status_code == 200
        assert resident() > before + 60 * MB
        assert change(f"{LARGE}/unload")["gone"]
        assert resident() < before + 16 * MB


def test_loading_again_and_again_keeps_one(resident, change) -> None:
    before = resident()
    for _ in range(5):
        change(f"{LARGE}/load")
    assert change(f"{LARGE}/unload")["gone"]
    assert resident() < before + 16 * MB


def test_many_changes_do_not_grow(resident, change) -> None:
    for _ in range(10):
        change(f"{SMALL}/load")
        change(f"{SMALL}/unload")
    before = resident()
    for _ in range(100):
        change(f"{SMALL}/load")
        assert change(f"{SMALL}/unload")["gone"]
    assert resident() < before + 4 * MB
