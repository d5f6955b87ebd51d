"""What does the service itself cost: requests a second and latency around a model that takes no time?

    python -m benchmarks.service_http
    python -m benchmarks.service_http --against ../main --rounds 5
    python -m benchmarks.service_http --models models --variant sparse-int8

Starts `sparsebert serve` of this folder, and of the folder named with --against, each in a process of its own,
and asks `POST /v1/predict` for one text at a time over 1, 16 and 64 kept-alive connections, each of which sends
its next request when it has its answer (a closed loop). The two take turns, so that what else the machine does
hits both; the ratio is the median over the rounds. Without --models a bundle is made whose graph adds up a few
rows of a table, so that what is measured is everything but a model.
"""

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.http_connections import post
from benchmarks.http_load import Load, closed_loop
from benchmarks.service_process import started

HERE = Path(__file__).resolve().parents[1]
TEXTS = ("the good film", "a very awful plot", "not bad", "the film the plot the good the bad and the awful", "fine")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One round of one service at one number of connections."""

    load: Load
    cpu_s: float

    @property
    def cpu_ms(self) -> float:
        """Of the service, for one request: says something on a machine that has other work, too."""
        return self.cpu_s * 1000 / len(self.load.answers)

    @property
    def per_second(self) -> float:
        return self.load.per_second


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running one."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """Seconds of CPU that it has taken so far."""
        times = self.process.cpu_times()
        return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="folder with another version of the source, to compare with")
    parser.add_argument("--models", type=Path, help="folder with bundles; a tiny one is made when left out")
    parser.add_argument("--variant", help="variant to ask; the default when left out")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of one service")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sources = [HERE] + ([options.against.resolve()] if options.against else [])
    bodies = [json.dumps({"inputs": text, **_variant(options.variant)}).encode() for text in TEXTS]
    requests = [post("/v1/predict", body) for body in bodies]
    with ExitStack() as stack:
        models = options.models or tiny_models(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        running = [stack.enter_context(started(models, source=source)) for source in sources]
        services = [Service(port=one.port, process=psutil.Process(one.process.pid)) for one in running]
        for service in services:
            measure(service, requests, 4, 1.0)
        for connections in options.connections:
            rounds = [
                [measure(service, requests, connections, options.seconds) for service in services]
                for _ in range(options.rounds)
            ]
            tell(sources, connections, rounds)


def tell(sources: list[Path], connections: int, rounds: list[list[Measured]]) -> None:
    for index, source in enumerate(sources):
        latencies_ms = sorted(latency for one in rounds for latency in one[index].load.latencies_ms)
        p50, p95, p99 = (latencies_ms[int(share * (len(latencies_ms) - 1))] for share in (0.5, 0.95, 0.99))
        rate = statistics.median(one[index].per_second for one in rounds)
        cpu_ms = statistics.median(one[index].cpu_ms for one in rounds)
        print(
            f"{connections:3} connections  {rate:7.0f} req/s  p50 {p50:.2f}  p95 {p95:.2f}  p99 {p99:.2f} ms  "
            f"CPU {cpu_ms:.3f} ms a request  {source}"
        )
    if len(sources) == 2:
        for what, ratios in (
            ("req/s", sorted(one[0].per_second / one[1].per_second for one in rounds)),
            ("CPU", sorted(one[0].cpu_ms / one[1].cpu_ms for one in rounds)),
        ):
            print(f"    ratio of {what}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def measure(service: Service, requests: list[bytes], connections: int, seconds: float) -> Measured:
    """One closed loop. Any answer but 200 ends the benchmark."""
    cpu_s = service.cpu_s()
    load = asyncio.run(closed_loop(service.port, requests, connections, seconds))
    cpu_s = service.cpu_s() - cpu_s
    for answer in load.answers:
        if answer.status != 200:
            sys.exit(f"the service answered {answer.status}: {answer.body.decode()}")
    return Measured(load=load, cpu_s=cpu_s)


def tiny_models(folder: Path) -> Path:
    """A folder with the tiny bundle of the tests."""
    spec = importlib.util.spec_from_file_location("tiny_bundles", HERE / "tests" / "shared" / "tiny_bundles.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_tiny_bundle(folder)
    return folder


def _variant(name: str | None) -> dict[str, str]:
    return {} if name is None else {"variant": name}


if __name__ == "__main__":
    main()
