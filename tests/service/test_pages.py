"""What every answer tells browsers: headers, the policy of the pages that really lets them work, and other origins."""

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

API = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
GOOD = {"inputs": "the good film"}
ORIGIN = "https://shop.example"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/predict", GOOD),
        ("POST", "/v1/compare", GOOD),
        ("POST", "/v1/predict", {"inputs": ""}),
        ("GET", "/v1/models", None),
        ("GET", "/metrics", None),
        ("GET", "/readyz", None),
        ("GET", "/v2/models/reviews", None),
        ("GET", "/nope", None),
        ("PUT", "/v1/predict", None),
        ("POST", "/v2/repository/models/x/load", None),
    ],
)
def test_every_answer_is_neither_sniffed_nor_kept(
    client: TestClient, method: str, path: str, body: dict[str, str] | None
) -> None:
    headers = client.request(method, path, json=body).headers
    assert {name: headers.get(name) for name in API} == API
    assert "server" not in headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_runs_its_own_scripts_and_no_others(client: TestClient, path: str) -> None:
    page = client.get(path)
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        blocks = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page.text, re.DOTALL)
        hashes = [b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks if block.strip()]
        assert policy[rule].split() == ["'self'", *(f"'sha256-{one}'" for one in hashes)]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r'<[^>]+ (on\w+|style)="', page.text)
    assert re.findall(r'(?:src|href)="(?!/)', page.text) == []


def test_what_the_docs_load_may_be_kept(client: TestClient) -> None:
    for link in re.findall(r'(?:src|href)="(/docs/[^"]+)"', client.get("/docs").text):
        asset = client.get(link)
        assert asset.status_code == 200
        assert asset.headers["cache-control"] == "max-age=3600"
        assert asset.headers["x-content-type-options"] == "nosniff"


def preflight(client: TestClient, origin: str, method: str = "POST") -> tuple[int, dict[str, str]]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type, x-request-timeout-ms",
    }
    answer = client.options("/v1/predict", headers=headers)
    return answer.status_code, {name: value for name, value in answer.headers.items() if name.startswith("access-")}


def test_other_origins_are_let_in_by_nobody(client: TestClient) -> None:
    assert preflight(client, ORIGIN) == (405, {})
    answer = client.post("/v1/predict", json=GOOD, headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-")]


def test_named_origins_are_let_in(models_folder: Path) -> None:
    with TestClient(create_app(Settings(models=models_folder, threads=1, cors_origins=(ORIGIN,)))) as client:
        status, headers = preflight(client, ORIGIN)
        assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert headers["access-control-allow-methods"] == "GET, POST"
        assert "access-control-allow-credentials" not in headers
        assert preflight(client, "https://evil.example")[0] == 400
        assert preflight(client, ORIGIN, "DELETE")[0] == 400
        answer = client.post("/v1/predict", json=GOOD, headers={"Origin": ORIGIN})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-request-id"]
        other = client.post("/v1/predict", json=GOOD, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_preflight_needs_no_key_and_a_refusal_can_be_read(models_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text('{"name": "a", "scope": "user", "sha256": "%s"}' % ("0" * 64))
    keys.chmod(0o600)
    settings = Settings(models=models_folder, threads=1, cors_origins=("*",), api_keys=str(keys))
    with TestClient(create_app(settings)) as client:
        assert preflight(client, ORIGIN)[0] == 200
        refused = client.post("/v1/predict", json=GOOD, headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
