"""What do callers see of it when the keys of a running app change?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app, load_keys
from service.gate import Gate
from service.hangups import Hangups
from service.keys import Key, KeyRing, Scope, make_key, write_line
from service.settings import Settings
from watching import wait_until

FIRST, SECOND, ADMIN, SLOW = (
    make_key(name, scope, rate, lambda size, name=name: name * size)
    for name, scope, rate in (
        ("first", Scope.USER, None),
        ("second", Scope.USER, None),
        ("operator", Scope.ADMIN, None),
        ("slow", Scope.USER, "4/hour"),
    )
)
READ_AT = "keys_last_reload_success_timestamp_seconds"
ADMIN_PATH, GOOD = "/v1/admin/models", {"inputs": "the good film"}


def write(path: Path, *keys: tuple[str, Key]) -> None:
    path.write_text("".join(write_line(key) + "\n" for _, key in keys))
    path.chmod(0o600)


class App:
    """A running app whose keys file changes."""

    def __init__(self, client: TestClient, path: Path, hangups: Hangups) -> None:
        self.client = client
        self._path = path
        self._hangups = hangups

    def change(self, *keys: tuple[str, Key]) -> None:
        write(self._path, *keys)
        before = self.read_at()
        self._hangups(0, None)
        self.client.portal.call(self.client.app.state.keys_file.follow)
        wait_until(lambda: self.read_at() != before)

    def read_at(self) -> str:
        lines = self.client.get("/metrics").text.splitlines()
        return next(line for line in lines if line.startswith(f"sparsebert_{READ_AT} "))

    def status(self, made: tuple[str, Key], path: str = ADMIN_PATH) -> int:
        headers = {"X-API-Key": made[0]}
        asked = {} if path == ADMIN_PATH else {"json": GOOD}
        return self.client.request("POST" if asked else "GET", path, headers=headers, **asked).status_code

    def statuses_told(self) -> set[str]:
        document = self.client.get("/openapi.json").json()
        return set(document["paths"]["/v1/models"]["get"]["responses"])


@contextmanager
def running(models: Path, path: Path, *keys: tuple[str, Key]) -> Iterator[App]:
    write(path, *keys)
    settings, hangups = Settings(models=models, threads=1, api_keys=str(path)), Hangups()
    with TestClient(create_app(settings, num_asked=lambda: hangups.num)) as client:
        yield App(client, path, hangups)


def test_the_first_reading_is_that_of_the_start_and_not_when_all_was_loaded(
    models_folder: Path, tmp_path: Path
) -> None:
    write(tmp_path / "keys", FIRST)
    settings = Settings(models=models_folder, threads=1, api_keys=str(tmp_path / "keys"))
    ring = KeyRing(keys=(FIRST[1],), read_at_s=1234.0)
    with TestClient(create_app(settings, ring=ring)) as client:
        assert f"\nsparsebert_{READ_AT} 1234.0\n" in client.get("/metrics").text


def test_the_keys_of_the_start_are_as_old_as_the_beginning_of_their_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]

    def read(path: Path) -> KeyRing:
        now_s[0] = 9999.0
        return KeyRing(keys=(FIRST[1],))

    monkeypatch.setattr("service.app.read_keys", read)
    assert load_keys(Settings(api_keys="keys"), lambda: now_s[0]).read_at_s == 1000.0


def test_the_keys_in_force_decide_whether_there_are_admin_paths(models_folder: Path, tmp_path: Path) -> None:
    with running(models_folder, tmp_path / "keys", FIRST) as app:
        assert (app.status(FIRST), app.status(ADMIN)) == (403, 403)
        app.change(FIRST, ADMIN)
        assert (app.status(FIRST), app.status(ADMIN), app.status(SECOND)) == (403, 200, 401)
        app.change(FIRST)
        assert app.status(ADMIN) == 403
        assert app.status(ADMIN, "/v1/predict") == 401


def test_a_reading_refills_no_limit_and_the_description_tells_of_new_ones(models_folder: Path, tmp_path: Path) -> None:
    with running(models_folder, tmp_path / "keys", FIRST) as app:
        assert app.statuses_told() == {"200", "401"}
        app.change(FIRST, SLOW)
        assert app.statuses_told() == {"200", "401", "429"}
        assert [app.status(SLOW, "/v1/predict") for _ in range(3)] == [200] * 3
        app.change(SLOW, SECOND)
        assert [app.status(SLOW, "/v1/predict") for _ in range(2)] == [200, 429]


def test_a_request_that_was_let_in_spends_of_its_own_bucket() -> None:
    gate = Gate(ring=KeyRing(keys=(SLOW[1],)), rate=None, clock_s=lambda: 0.0)
    headers = [(b"x-api-key", SLOW[0].encode())]
    let_in = gate.admit("/v1/predict", headers, "1")
    gate.renew(KeyRing(keys=(FIRST[1], SLOW[1])))
    let_in.spend(3)
    assert gate.admit("/v1/models", [(b"x-api-key", FIRST[0].encode())], "2") is None
    with pytest.raises(Exception, match="the rate limit is used up"):
        gate.admit("/v1/predict", headers, "3")
