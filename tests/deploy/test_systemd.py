"""The scripts that install and update, in a root of their own with stand-ins for systemd and pip."""

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = SYSTEMD / "sparsebert.service"
PROGRAMS = {
    # As a box that limits starts: a service that never gets ready has used them up by the time that somebody notices.
    "systemctl": """echo "$*" >> "$CALLS"
case $1 in
    show) echo infinity ;;
    is-active) [[ -e $ROOT/started ]] ;;
    reset-failed) rm -f "$ROOT/limit-hit" ;;
    restart)
        rm -f "$ROOT/started"
        if [[ -e $ROOT/limit-hit ]]; then echo "start request repeated too quickly" >&2; exit 1; fi
        touch "$ROOT/started"
        if [[ -e $ROOT/opt/sparsebert/current/never-ready ]] ||
            grep -rqs never-ready "$ROOT/var/lib/sparsebert/models/"; then touch "$ROOT/limit-hit"; fi ;;
esac
""",
    # Where the link to the models points while what was written goes to the disk.
    "sync": """echo "$* $(readlink "$ROOT/var/lib/sparsebert/models")" >> "$SYNCED"
""",
    # Runs what it is given; the rest are properties.
    "systemd-run": """while [[ $1 == --* ]]; do shift; done
echo "test ${*: -1}" >> "$CALLS"
exec "$@"
""",
    # Makes a folder that looks like a virtual environment; anything else is Python's.
    "python-stand-in": """if [[ "$1 $2" == "-m venv" ]]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
elif [[ "$1 $2" == "-m pip" ]]; then
    echo "pip ${*:3}" >> "$CALLS"
    cp "$STAND_INS/sparsebert" "$(dirname "$0")/sparsebert"
else
    exec "$REAL_PYTHON" "$@"
fi
""",
    # The golden self-test: what is wrong with these models is in a file beside the manifest.
    "sparsebert": """echo "table of ${*: -1}"
! grep -rq fails-its-test "${*: -1}"
""",
}


class Box:
    """A root folder, and a service whose readiness is what is written in the models and the release it has."""

    def __init__(self, folder: Path) -> None:
        self.root, self.checkout, self.calls_file = folder / "root", folder / "checkout", folder / "calls"
        self.opt, self.state = self.root / "opt/sparsebert", self.root / "var/lib/sparsebert"
        stand_ins = folder / "stand-ins"
        for path in (self.root, stand_ins):
            path.mkdir()
        for name, body in PROGRAMS.items():
            (stand_ins / name).write_text("#!/bin/bash\n" + body)
            (stand_ins / name).chmod(0o755)
        for name in ("sparsebert", "service", "training", "export"):
            (self.checkout / name).mkdir(parents=True)
            (self.checkout / name / "__init__.py").write_text(name)
        for name in ("pyproject.toml", "constraints.txt"):
            (self.checkout / name).touch()
        shutil.copytree(SYSTEMD, self.checkout / "deploy/systemd")
        self._variables = {
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "PYTHON": "python-stand-in",
            "REAL_PYTHON": sys.executable,
            "STAND_INS": str(stand_ins),
            "CALLS": str(self.calls_file),
            "SYNCED": str(folder / "synced"),
            "WAIT_S": "0",
        }

    def install(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self._run(self.checkout / "deploy/systemd/install.sh", *words)

    def update(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        return self._run(self.root / "usr/local/sbin/sparsebert-update-models", *words)

    def _run(self, script: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        self.calls_file.write_text("")
        return subprocess.run(["bash", script, *words], env=self._variables, capture_output=True, text=True)

    def set_port(self, port: int) -> None:
        self.port = port
        (self.root / "etc/sparsebert").mkdir(parents=True)
        self.settings(f"SPARSEBERT_PORT={port}\n")

    def settings(self, text: str) -> None:
        (self.root / "etc/sparsebert/sparsebert.env").write_text(text)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()

    @property
    def served(self) -> str:
        """What is written in the models that the link points to."""
        return (self.state / "models/demo/sparse-int8/manifest.json").read_text()

    @property
    def release(self) -> str:
        """What was installed as `service` when the release that is linked was made: its text, by its name."""
        return (self.opt / "current").readlink().name

    def models(self, text: str) -> Path:
        folder = self.root.parent / "incoming" / text
        (folder / "demo/sparse-int8").mkdir(parents=True)
        (folder / "demo/sparse-int8/manifest.json").write_text(text)
        return folder

    def change_sources(self, text: str) -> None:
        (self.checkout / "service/__init__.py").write_text(text)

    def is_ready(self) -> bool:
        started = (self.root / "started").exists() and not (self.opt / "current/never-ready").exists()
        return started and (self.state / "models").exists() and "never-ready" not in self.served


@pytest.fixture
def box(tmp_path):
    if shutil.which("bash") is None or shutil.which("flock") is None:
        pytest.skip("no bash or no flock")
    made = Box(tmp_path)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" and made.is_ready() else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    made.set_port(server.server_port)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def installed(box):
    assert box.install().returncode == 0
    return box


def test_a_dry_run_writes_nothing(box):
    before = sorted(box.root.rglob("*"))
    done = box.install("--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"making {box.opt}/releases/" in done.stdout
    assert sorted(box.root.rglob("*")) == before
    assert box.calls == []


def test_without_models_it_installs_and_starts_nothing(box):
    done = box.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert box.calls[0] == (
        f"pip install --quiet --disable-pip-version-check --constraint {box.checkout}/constraints.txt "
        f"{box.checkout}[serve]"
    )
    assert box.calls[1:] == ["daemon-reload", "enable --quiet sparsebert"]
    assert (box.root / "etc/systemd/system/sparsebert.service").read_bytes() == UNIT.read_bytes()
    assert "there are no models yet" in done.stdout


def test_its_settings_are_written_once(box):
    settings = box.root / "etc/sparsebert/sparsebert.env"
    settings.unlink()
    assert box.install().returncode == 0
    assert settings.read_bytes() == (SYSTEMD / "sparsebert.env").read_bytes()
    settings.write_text("mine")
    box.change_sources("new")
    assert box.install().returncode == 0
    assert settings.read_text() == "mine"


def test_again_it_changes_nothing(installed):
    assert installed.update(installed.models("one")).returncode == 0
    done = installed.install()
    assert done.returncode == 0
    assert [call for call in installed.calls if call.startswith(("pip", "restart"))] == []
    assert "nothing has changed" in done.stdout


def test_without_an_index_it_takes_wheels(box):
    assert box.install("--wheels", "/media/usb").returncode == 0
    assert " --no-index --find-links /media/usb --constraint " in box.calls[0]


def test_an_upgrade_is_tested_on_the_models_and_can_be_undone(installed):
    installed.update(installed.models("one"))
    first = installed.release
    installed.change_sources("new")
    assert installed.install().returncode == 0
    second = installed.release
    assert second != first
    assert installed.calls[1:] == [
        "show --property=MemoryMax --value sparsebert", f"test {installed.state}/models",
        "daemon-reload", "enable --quiet sparsebert", "reset-failed sparsebert", "restart sparsebert",
    ]  # fmt: skip
    assert installed.install("--rollback").returncode == 0
    assert (installed.release, installed.calls[-1]) == (first, "restart sparsebert")


def test_a_release_that_fails_on_the_models_is_not_switched_to(installed):
    installed.update(installed.models("one"))
    first = installed.release
    installed.change_sources("new")
    (installed.state / "models/demo/sparse-int8/manifest.json").write_text("fails-its-test")
    done = installed.install()
    assert (done.returncode, installed.release) == (1, first)
    assert "nothing was switched" in done.stderr
    assert "restart sparsebert" not in installed.calls


def test_a_release_that_does_not_get_ready_is_switched_back_from(installed):
    installed.update(installed.models("one"))
    first = installed.release
    installed.change_sources("new")
    planned = installed.install("--dry-run").stdout
    release = Path(re.search(r"making (\S+)", planned)[1])
    assert installed.install().returncode == 0
    (release / "never-ready").touch()
    assert installed.install("--rollback").returncode == 0
    assert installed.release == first
    done = installed.install()
    assert (done.returncode, installed.release) == (1, first)
    assert "the one before serves again" in done.stderr
    assert installed.calls.count("restart sparsebert") == 2


def test_models_are_tested_switched_and_the_last_two_kept(installed):
    for text in ("one", "two", "three"):
        done = installed.update(installed.models(text))
        assert (done.returncode, installed.served) == (0, text), done.stderr
        assert installed.calls[-1] == "restart sparsebert"
        assert sum(call.startswith("test ") for call in installed.calls) == 1
    kept = {folder.read_text() for folder in installed.state.glob("releases/*/demo/sparse-int8/manifest.json")}
    assert kept == {"two", "three"}


def test_the_same_models_again_are_not_served_anew(installed):
    folder = installed.models("one")
    installed.update(folder)
    done = installed.update(folder)
    assert (done.returncode, installed.calls) == (0, [])
    assert "serve already" in done.stdout


def test_models_that_were_damaged_on_the_disk_can_be_brought_again(installed):
    folder = installed.models("one")
    installed.update(folder)
    (installed.state / "models/demo/sparse-int8/manifest.json").write_text("rotten")
    assert installed.update(folder).returncode == 0
    assert installed.served == "one"


def test_models_that_fail_their_test_change_nothing(installed):
    installed.update(installed.models("one"))
    done = installed.update(installed.models("fails-its-test"))
    assert (done.returncode, installed.served) == (1, "one")
    assert "nothing was changed" in done.stderr
    assert "restart sparsebert" not in installed.calls
    assert len([path for path in (installed.state / "releases").iterdir() if path.is_dir()]) == 1


def test_models_that_do_not_get_ready_are_taken_back(installed):
    installed.update(installed.models("one"))
    done = installed.update(installed.models("never-ready"))
    assert (done.returncode, installed.served) == (1, "one")
    assert "the old ones serve again" in done.stderr
    assert installed.calls.count("restart sparsebert") == 2
    assert len([path for path in (installed.state / "releases").iterdir() if path.is_dir()]) == 1


def test_what_serves_is_on_the_disk_before_and_after_the_link_is_switched(installed):
    for text in ("one", "two"):
        installed.update(installed.models(text))
    one, two = (installed.state / name for name in ("previous", "models"))
    synced = (installed.root.parent / "synced").read_text().splitlines()
    before, after = synced[-4:-2]  # those of the link `previous` are the last
    assert before == f"--file-system {installed.state} {one.readlink()}"
    assert after == f"--file-system {installed.state} {two.readlink()}"


@pytest.mark.parametrize(
    "settings",
    [
        'SPARSEBERT_PORT="{port}"\nSPARSEBERT_HOST="127.0.0.1"\n',
        "SPARSEBERT_PORT = '{port}' \nSPARSEBERT_HOST=0.0.0.0\n",
        "SPARSEBERT_PORT=1\n SPARSEBERT_PORT={port}\n#SPARSEBERT_PORT=2\n",
    ],
)
def test_settings_are_read_as_systemd_reads_them(installed, settings):
    installed.settings(settings.format(port=installed.port))
    done = installed.update(installed.models("one"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"http://127.0.0.1:{installed.port}/readyz is ready" in done.stdout


@pytest.mark.parametrize(("host", "asked"), [("::", "[::1]"), ("fe80::1", "[fe80::1]")])
def test_an_ipv6_address_is_asked_in_brackets(installed, host, asked):
    installed.settings(f"SPARSEBERT_HOST={host}\nSPARSEBERT_PORT=no-port\n")
    done = installed.update(installed.models("one"))
    assert done.returncode == 1
    assert f"http://{asked}:no-port/readyz is not ready after 0 s: nonnumeric port" in done.stderr
    assert "Traceback" not in done.stderr


def test_first_models_that_do_not_get_ready_leave_the_service_stopped(installed):
    done = installed.update(installed.models("never-ready"))
    assert done.returncode == 1
    assert installed.calls[-1] == "stop sparsebert"
    assert not (installed.state / "models").exists()


def test_the_models_before_come_back(installed):
    for text in ("one", "two"):
        installed.update(installed.models(text))
    assert installed.update("--rollback").returncode == 0
    assert (installed.served, installed.calls) == ("one", ["reset-failed sparsebert", "restart sparsebert"])
    assert installed.update("--rollback").returncode == 0
    assert installed.served == "two"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["/nonexistent"], 1, "has no bundles"),
        (["--rollback"], 1, "no models before"),
        ([], 2, ""),
        (["a", "b"], 2, ""),
    ],
)
def test_what_cannot_be_done_is_refused(installed, words, code, said):
    done = installed.update(*words)
    assert (done.returncode, installed.calls) == (code, [])
    assert said in done.stderr


def test_two_updates_at_a_time_are_refused(installed):
    import fcntl

    (installed.state / "releases").mkdir(parents=True)
    with (installed.state / "releases/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = installed.update(installed.models("one"))
    assert (done.returncode, installed.calls) == (1, [])
    assert "another update" in done.stderr
