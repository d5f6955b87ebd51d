"""A box that the scripts install to: a root of its own, with stand-ins for systemd and pip."""

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[3] / "deploy" / "systemd"
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
