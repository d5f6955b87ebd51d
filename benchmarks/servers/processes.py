"""How is a server started on a free port, held still while others are measured, weighed, and stopped?

A server is a tree of processes. Those that wait for their turn are stopped with SIGSTOP, so that none takes CPU
from the one that is measured. Knows nothing about loads.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.servers.registry import OURS, Server, Settings

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of a tree: pages that are shared count in parts (PSS), or not at all (USS)."""

    pss_bytes: int
    uss_bytes: int


class StartError(Exception):
    """A server did not start; the message says where its own words are."""


class Running:
    """A server that runs."""

    def __init__(self, name: str, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.name, self.port = name, port
        self._process = process
        self._seen: dict[psutil.Process, None] = {}

    def tree(self) -> list[psutil.Process]:
        """Parents first; those that were seen before stay in it, so that none outlives a parent that died."""
        try:
            root = psutil.Process(self._process.pid)
            self._seen |= dict.fromkeys([root, *root.children(recursive=True)])
        except psutil.NoSuchProcess:
            pass  # it ended; its children may still be there
        return [process for process in self._seen if process.is_running()]

    def pause(self) -> None:
        """Parents first, and the other way round afterwards: who watches a child never sees it stopped."""
        _each(self.tree(), lambda process: process.send_signal(signal.SIGSTOP))

    def resume(self) -> None:
        _each(self.tree()[::-1], lambda process: process.send_signal(signal.SIGCONT))

    def memory(self) -> Memory:
        found = _each(self.tree(), lambda process: process.memory_full_info())
        return Memory(pss_bytes=sum(one.pss for one in found), uss_bytes=sum(one.uss for one in found))

    def cpu_s(self) -> float:
        """Seconds of CPU that the tree has taken so far."""
        return sum(one.user + one.system for one in _each(self.tree(), lambda process: process.cpu_times()))

    def stop(self, patience_s: float = 10.0) -> None:
        """Ask it to end, and end what is left of its tree."""
        self.resume()
        tree = self.tree()
        self._process.terminate()
        _, left = psutil.wait_procs(tree, patience_s)
        _each(left, lambda process: process.kill())
        self._process.wait()

    def alive(self) -> bool:
        return self._process.poll() is None


def _each(processes: Sequence[psutil.Process], what: Callable[[psutil.Process], Any]) -> list[Any]:
    """What each says; one that has just ended says nothing."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found.append(what(process))
    return found


def start(server: Server, settings: Settings, bundle: Path, environments: Path, logs: Path) -> Running:
    """Start and wait until it answers a text. Raises StartError."""
    port = free_port()
    command, environment = _command(server, bundle, port, environments), _environment(server, settings, bundle, port)
    return launch(server, port, command, environment, logs / f"{server.name}.log")


def launch(server: Server, port: int, command: Sequence[str], environment: dict[str, str], log: Path) -> Running:
    """The same of any command that serves on `port`."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Running(server.name, port, process)
    try:
        _wait(running, lambda: _answers(server, port))
    except StartError as error:
        running.stop()
        raise StartError(f"{server.name} {error}; see {log}") from error
    return running


def free_port() -> int:
    """One whose next two are likely to be free too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(server: Server, bundle: Path, port: int, environments: Path) -> list[str]:
    if server.name == OURS:
        models, name = bundle.parents[1], f"{bundle.parent.name}/{bundle.name}"
        return [
            sys.executable,
            "-m",
            "sparsebert",
            "serve",
            "--models",
            str(models),
            "--variants",
            name,
            "--port",
            str(port),
        ]
    return [str(environments / server.name / "bin" / "python"), str(PEERS / f"{server.name}_server.py")]


def _environment(server: Server, settings: Settings, bundle: Path, port: int) -> dict[str, str]:
    """Ours is found from the source; a peer finds what all peers are given, and counts nobody's use."""
    if server.name == OURS:
        return {**os.environ, "PYTHONPATH": str(ROOT)}
    return {
        **os.environ,
        "PYTHONPATH": str(PEERS),
        "BENCHMARK_BUNDLE": str(bundle),
        "BENCHMARK_PORT": str(port),
        "BENCHMARK_SETTINGS": json.dumps(dict(settings)),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }


def _answers(server: Server, port: int) -> bool:
    body = json.dumps(server.body("a gripping film")).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return bool(server.label(json.loads(response.read())))
    except (OSError, urllib.error.URLError):
        return False


def _wait(running: Running, ready: Callable[[], bool], patience_s: float = 180.0) -> None:
    until_s = time.monotonic() + patience_s
    while not ready():
        if not running.alive():
            raise StartError("ended")
        if time.monotonic() > until_s:
            raise StartError(f"did not answer within {patience_s:g} s")
        time.sleep(0.1)
