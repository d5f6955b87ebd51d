r"""What does Ray Serve cost, and what does a second replica give on the same machine?

    python -m venv venvs/cluster && venvs/cluster/bin/pip install -c constraints.txt -e '.[serve,cluster]'
    python -m benchmarks.servers.cluster models/sst2/sparse-int8 --data-dir data/sst2 \
        --python venvs/cluster/bin/python --output runs/cluster

The same bundle behind one process without Ray with --threads 1 and with --threads 2, and behind Ray with one and
with two replicas of one thread each, with Ray's proxy and with HAProxy in its place; in turns, one at a time, so that
each ratio is of one round. Writes
`cells.jsonl` and `table.md`.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.servers import measuring
from benchmarks.servers.processes import ROOT, Running, free_port, launch
from benchmarks.servers.registry import OURS, SERVERS
from benchmarks.servers.texts import read_texts

BASELINE = "one process, 1 thread"
HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the service is started."""

    flags: Sequence[str]
    environment: Mapping[str, str]


def _on_ray(replicas: int, **environment: str) -> Way:
    flags = ["--ray", "local", "--ray-replicas", str(replicas), "--ray-cpus", "1"]
    return Way(flags=flags, environment={"RAY_AUTH_MODE": "disabled", **environment})


WAYS = {
    BASELINE: Way(flags=["--threads", "1"], environment={}),
    "one process, 2 threads": Way(flags=["--threads", "2"], environment={}),
    "Ray, 1 replica": _on_ray(1),
    "Ray, 2 replicas": _on_ray(2),
    "Ray with HAProxy, 1 replica": _on_ray(1, **HAPROXY),
    "Ray with HAProxy, 2 replicas": _on_ray(2, **HAPROXY),
}
CONNECTIONS = (1, 16, 64)
SETTLE_S = 2.0
# Ray ends a replica after its requests, and then itself.
STOP_S = 60.0


def main() -> None:
    options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the servers are stopped too
    options.output.mkdir(parents=True, exist_ok=True)
    bench = measuring.bench(options.bundle, read_texts(options.data_dir))
    cells: list[dict[str, Any]] = []
    for number in range(options.rounds):
        ways = list(WAYS)
        for way in ways if number % 2 == 0 else ways[::-1]:
            cells += measured(way, number, options, bench)
            (options.output / "cells.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    (options.output / "table.md").write_text(table(cells))
    print(table(cells))


def measured(way: str, number: int, options: argparse.Namespace, bench: measuring.Bench) -> list[dict[str, Any]]:
    """One way, started anew, at every number of connections."""
    running = _start(way, options)
    try:
        cells = []
        for connections in CONNECTIONS:
            measuring.settle(SERVERS[OURS], running.port, bench, connections, SETTLE_S)
            before_s = running.cpu_s()
            seen = measuring.closed(SERVERS[OURS], running.port, bench, connections, options.seconds)
            cpu_ms = (running.cpu_s() - before_s) * 1000 / seen["requests"]
            cells.append({"way": way, "round": number, "connections": connections, "cpu_ms": cpu_ms, **seen})
            print(f"{way}, {connections} connections: {seen['per_second']:.0f}/s, {cpu_ms:.1f} ms CPU", flush=True)
        return cells
    finally:
        running.stop(STOP_S)


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Medians over the rounds; the ratio is that of each round."""
    head = "| way | connections | texts/s | p50 ms | p99 ms | CPU ms of a text | to one process, 1 thread | wrong |\n"
    head += "|---|---|---|---|---|---|---|---|\n"
    rows = []
    for connections in CONNECTIONS:
        of_load = [cell for cell in cells if cell["connections"] == connections]
        base = {cell["round"]: cell["per_second"] for cell in of_load if cell["way"] == BASELINE}
        for way in WAYS:
            seen = [cell for cell in of_load if cell["way"] == way]
            middle = {
                name: median(cell[name] for cell in seen) for name in ("per_second", "p50_ms", "p99_ms", "cpu_ms")
            }
            ratio = median(cell["per_second"] / base[cell["round"]] for cell in seen)
            wrong = sum(cell["errors"] + cell["unanswered"] for cell in seen)
            rows.append(
                f"| {way} | {connections} | {middle['per_second']:.0f} | {middle['p50_ms']:.1f} | "
                f"{middle['p99_ms']:.1f} | {middle['cpu_ms']:.2f} | {ratio:.2f} | {wrong} |\n"
            )
    return head + "".join(rows)


def _start(way: str, options: argparse.Namespace) -> Running:
    port = free_port()
    bundle = options.bundle.resolve()
    command = [
        str(options.python.absolute()), "-m", "sparsebert", "serve", "--models", str(bundle.parents[1]),
        "--variants", f"{bundle.parent.name}/{bundle.name}", "--port", str(port), *WAYS[way].flags,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **WAYS[way].environment}
    return launch(SERVERS[OURS], port, command, environment, options.output / "server.log")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a bundle, such as models/sst2/sparse-int8")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with SST-2 as validation.parquet")
    parser.add_argument("--python", type=Path, required=True, help="of an environment with sparsebert[serve,cluster]")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/cluster"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
