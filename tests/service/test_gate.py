"""Who gets in where: open paths, user keys, admin keys, limits, and what is told and counted."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from service.app import ROUTERS, create_app
from service.gate import is_admin
from service.keys import Scope, make_key, write_line
from service.settings import Settings
from sparsebert.client import AsyncClient, RefusedError

USER, ADMIN, SLOW = (
    make_key(name, scope, rate, lambda num_bytes, name=name: name * num_bytes)
    for name, scope, rate in (("u", Scope.USER, None), ("a", Scope.ADMIN, None), ("s", Scope.USER, "4/hour"))
)
GOOD = {"inputs": "the good film"}
TENSORS = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}]}
ADMIN_ROUTES = ("/v2/repository/models/reviews/load", "/v2/repository/models/reviews/unload", "/v1/admin/anything")
NOT_ENABLED = (
    "loading and unloading over HTTP is not enabled; add an admin key to the file of --api-keys with `sparsebert key`"
)

NO_KEY = "a key is needed; send it in the header Authorization: Bearer KEY, or in X-API-Key"
WRONG_KEY = "the key is none of this service; ask whoever runs it for one"


def bearer(made: tuple[str, object]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made[0]}"}


def keys_file(folder: Path, *made: tuple[str, object]) -> str:
    path = folder / "keys.jsonl"
    path.write_text("".join(write_line(key) + "\n" for _, key in made))
    path.chmod(0o600)
    return str(path)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    """A service with the keys USER, ADMIN and SLOW."""
    folder = tmp_path_factory.mktemp("guarded")
    for seed, variant in enumerate(("dense", "sparse")):
        write_bundle(folder / "models", variant=variant, seed=seed)
    settings = Settings(models=folder / "models", threads=1, api_keys=keys_file(folder, USER, ADMIN, SLOW))
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture(scope="module")
def unguarded(guarded: TestClient) -> Iterator[TestClient]:
    """The same without keys."""
    settings = guarded.app.state.serving.settings.model_copy(update={"api_keys": ""})
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture
def fresh(guarded: TestClient) -> Iterator[TestClient]:
    """Another one with keys, of which nobody has asked anything yet."""
    with TestClient(create_app(guarded.app.state.serving.settings)) as running:
        yield running


def requests_of_all_routes() -> list[tuple[str, str]]:
    routes = [route for router in ROUTERS for route in router.routes]
    filled = [(method, route.path) for route in routes for method in sorted(route.methods)]
    for name, value in (("model", "reviews"), ("version", "dense"), ("asset", "favicon.png"), ("variant", "dense")):
        filled = [(method, path.replace(f"{{{name}}}", value)) for method, path in filled]
    return [*filled, ("GET", "/openapi.json")]


NEEDS_NO_KEY = {
    "/", "/docs", "/docs/favicon.png", "/openapi.json", "/healthz", "/readyz", "/metrics", "/v2/health/live",
    "/v2/health/ready",
}  # fmt: skip


@pytest.mark.parametrize(("method", "path"), requests_of_all_routes())
def test_every_route_but_the_open_ones_needs_a_key(guarded: TestClient, method: str, path: str) -> None:
    assert (guarded.request(method, path).status_code == 401) == (path not in NEEDS_NO_KEY)
    assert (guarded.request(method, path, headers=bearer(USER)).status_code == 403) == path.startswith(
        ("/v1/admin", "/v2/repository/models")
    )


@pytest.mark.parametrize("path", ["/nope", "/v1/predict/", "//v1/predict", "/v1/PREDICT", "/docs", "/healthz/x", "/v1"])
def test_unknown_paths_are_closed_too(guarded: TestClient, path: str) -> None:
    assert guarded.post(path, json=GOOD, follow_redirects=False).status_code == (405 if path == "/docs" else 401)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {USER[0]}"},
        {"Authorization": USER[0]},
        {"Authorization": f"Bearer {USER[0]}x"},
        {"Authorization": f"Bearer {USER[1].sha256}"},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {USER[0]}"},
        {"Authorization": "Bearer " + "x" * 60_000},
    ],
)
def test_no_or_a_wrong_key_is_401(guarded: TestClient, headers: dict[str, str]) -> None:
    response = guarded.post("/v1/predict", json=GOOD, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert response.json()["error"] in (NO_KEY, WRONG_KEY)
    assert headers or response.json()["error"] == NO_KEY


@pytest.mark.parametrize(
    "headers",
    [
        bearer(USER),
        bearer(ADMIN),
        {"authorization": f"bearer   {USER[0]}"},
        {"X-API-Key": USER[0]},
        {"X-API-Key": USER[0], "Authorization": "Bearer of a proxy"},
        {"X-API-Key": USER[0], "Authorization": "Basic dTpw"},
    ],
)
def test_a_key_is_let_in(guarded: TestClient, headers: dict[str, str]) -> None:
    assert guarded.post("/v1/predict", json=GOOD, headers=headers).status_code == 200
    assert guarded.post("/v2/models/reviews/infer", json=TENSORS, headers=headers).status_code == 200
    assert guarded.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ADMIN_ROUTES)
def test_admin_paths(guarded: TestClient, unguarded: TestClient, path: str) -> None:
    assert guarded.post(path).status_code == 401
    refused = guarded.post(path, headers=bearer(USER))
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "this is for admin keys, and the key is a user's; send an admin key",
    )
    let_in = guarded.post(path, headers=bearer(ADMIN))
    assert let_in.status_code == (404 if path.endswith("anything") else 200)
    for headers in ({}, bearer(USER), bearer(ADMIN)):
        off = unguarded.post(path, headers=headers)
        assert (off.status_code, off.json()["error"]) == (403, NOT_ENABLED)


def test_admin_paths_are_off_with_user_keys_alone(models_folder: Path, tmp_path: Path) -> None:
    settings = Settings(models=models_folder, threads=1, api_keys=keys_file(tmp_path, USER))
    with TestClient(create_app(settings)) as running:
        for headers in ({}, bearer(USER)):
            off = running.post(ADMIN_ROUTES[0], headers=headers)
            assert (off.status_code, off.json()["error"]) == (403, NOT_ENABLED)


def test_what_the_router_takes_for_an_admin_route_the_gate_does_too() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    of_admin = [route for route in routes if "admin" in route.path or route.path.endswith("load")]
    assert len(of_admin) >= 2
    for route in of_admin:
        assert is_admin(route.path.format(model="m", variant="v", version="v"))


def test_the_key_is_judged_before_the_body_is_read(guarded: TestClient) -> None:
    assert guarded.post("/v1/predict", content=b"x" * 5_000_000).status_code == 401


def scrape(client: TestClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_refusals_are_counted_under_their_routes(fresh: TestClient) -> None:
    before = scrape(fresh)
    fresh.post("/v1/predict", json=GOOD)
    fresh.get("/v2/models/reviews")
    fresh.post("/v2/repository/models/reviews/load", headers=bearer(USER))
    for _ in range(5):
        last = fresh.post("/v1/predict", json=GOOD, headers=bearer(SLOW))
    fresh.get("/secret/path")
    after = scrape(fresh)
    assert before.keys() == after.keys()
    assert last.status_code == 429
    moved = {
        name: after[name] - before[name] for name in after if "http_requests" in name and after[name] != before[name]
    }
    moved = {name: by for name, by in moved.items() if "/metrics" not in name}
    assert moved == {
        'sparsebert_http_requests_total{method="POST",route="/v1/predict",status="200"}': 4,
        'sparsebert_http_requests_total{method="POST",route="/v1/predict",status="401"}': 1,
        'sparsebert_http_requests_total{method="POST",route="/v1/predict",status="429"}': 1,
        'sparsebert_http_requests_total{method="GET",route="/v2/models/{model}",status="401"}': 1,
        'sparsebert_http_requests_total{method="POST",route="/v2/repository/models/{model}/load",status="403"}': 1,
        'sparsebert_http_requests_total{method="GET",route="unmatched",status="401"}': 1,
    }
    assert after['sparsebert_rejections_total{reason="rate_limited"}'] == 1


def test_a_limit_counts_texts_and_tells_when_to_come_back(fresh: TestClient) -> None:
    texts = {"inputs": ["good", "bad", "fine"]}
    assert fresh.post("/v1/predict", json=texts, headers=bearer(SLOW)).status_code == 200
    assert fresh.post("/v1/compare", json=GOOD | {"repeats": 2}, headers=bearer(SLOW)).status_code == 200
    refused = fresh.post("/v1/predict", json=GOOD, headers=bearer(SLOW))
    assert refused.status_code == 429
    assert refused.json()["error"] == "the rate limit is used up; send fewer texts in a time"
    # Of 4 an hour, 3 + 2 variants x 2 are spent: 3 are owed and one is wanted.
    assert 3590 < int(refused.headers["retry-after"]) <= 3600
    assert fresh.get("/v1/models", headers=bearer(SLOW)).status_code == 429
    assert fresh.get("/readyz").status_code == 200
    assert fresh.post("/v1/predict", json=GOOD, headers=bearer(USER)).status_code == 200


def test_the_general_limit_is_for_keys_without_their_own(models_folder: Path, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, USER, ADMIN, SLOW)
    settings = Settings(models=models_folder, threads=1, api_keys=keys, rate_limit="1/hour")
    with TestClient(create_app(settings)) as running:
        for made, statuses in ((USER, [200, 429]), (ADMIN, [200, 429]), (SLOW, [200, 200, 200, 200, 429])):
            got = [running.post("/v1/predict", json=GOOD, headers=bearer(made)).status_code for _ in statuses]
            assert got == statuses


def test_without_keys_all_callers_share_the_limit(models_folder: Path) -> None:
    with TestClient(create_app(Settings(models=models_folder, threads=1, rate_limit="2/hour"))) as running:
        for name, status in (("one", 200), ("two", 200), ("three", 429)):
            headers = {"X-API-Key": name, "X-Forwarded-For": name}
            assert running.post("/v1/predict", json=GOOD, headers=headers).status_code == status


def test_the_client_of_the_package(guarded: TestClient) -> None:
    async def ask(api_key: str | None) -> int:
        transport = httpx.ASGITransport(guarded.app)
        async with AsyncClient("http://service", api_key=api_key, transport=transport) as client:
            return len(await client.models())

    assert asyncio.run(ask(USER[0])) == 2
    for wrong, sentence in ((None, NO_KEY), ("wrong", WRONG_KEY)):
        with pytest.raises(RefusedError) as caught:
            asyncio.run(ask(wrong))
        assert (caught.value.status, caught.value.sentence) == (401, sentence)


def test_the_description_tells_of_keys_where_there_are_any(guarded: TestClient, unguarded: TestClient) -> None:
    document = guarded.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    assert document["paths"]["/v1/predict"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert set(document["paths"]["/v1/models"]["get"]["responses"]) == {"200", "401", "429"}
    assert {"401", "403"} <= set(document["paths"]["/v1/admin/models"]["get"]["responses"])
    assert set(unguarded.get("/openapi.json").json()["paths"]["/v1/admin/models"]["get"]["responses"]) == {"200", "403"}
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert "security" not in json.dumps(unguarded.get("/openapi.json").json())
