"""How soon is `sparsebert serve` ready, and how much memory does it take: idle, and after many requests?

    python -m benchmarks.service_footprint --models models
    python -m benchmarks.service_footprint --models models --variants sparse-int8 --requests 100000

Starts the service in a process of its own on a free port, asks /readyz until it is ready, sends requests of
mixed sizes from several threads, and reads the memory of the process: resident (RSS), and its share of what it
has in common with other processes (PSS).
"""

import argparse
import json
import random
import statistics
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.service_process import Served, started

WORDS = ("the", "film", "was", "a", "slow", "but", "rather", "lovely", "story", "about", "two", "people", "who", "talk")
PARTS = 10


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of a process."""

    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Seconds to ready of each start; memory when ready and after each part of the requests."""

    starts_s: tuple[float, ...]
    memory: tuple[Memory, ...]
    num_requests: int
    num_texts: int
    took_s: float

    @property
    def ready_s(self) -> float:
        return statistics.median(self.starts_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--variants", default="", help="comma list, as in sparsebert serve")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    found = measure(options.models, options.variants, options.starts, options.requests, options.clients)
    print(f"ready after {found.ready_s:.2f} s (median of {options.starts}, {max(found.starts_s):.2f} s at most)")
    print(f"{found.num_requests} requests with {found.num_texts} texts in {found.took_s:.1f} s")
    for part, memory in enumerate(found.memory):
        after = part * found.num_requests // PARTS
        print(
            f"after {after:6} requests: {memory.rss_bytes / 1e6:.0f} MB resident, {memory.pss_bytes / 1e6:.0f} MB PSS"
        )


def measure(models: Path, variants: str, starts: int, requests: int, clients: int) -> Footprint:
    """Start it `starts` times, and ask the last one."""
    starts_s: list[float] = []
    for _ in range(starts - 1):
        with _ready(models, variants, starts_s):
            pass
    with _ready(models, variants, starts_s) as service:
        watched, url = psutil.Process(service.process.pid), service.url
        memory = [_memory(watched)]
        names = [one["variant"] for one in _ask(f"{url}/v1/models")["variants"]]
        bodies = _bodies(names, requests)
        texts, began_s = 0, time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            for part in range(PARTS):
                asked = bodies[part * requests // PARTS : (part + 1) * requests // PARTS]
                texts += sum(pool.map(lambda body: len(_ask(f"{url}/v1/predict", body)["predictions"]), asked))
                memory.append(_memory(watched))
        took_s = time.perf_counter() - began_s
    return Footprint(
        starts_s=tuple(starts_s), memory=tuple(memory), num_requests=requests, num_texts=texts, took_s=took_s
    )


@contextmanager
def _ready(models: Path, variants: str, starts_s: list[float]) -> Iterator[Served]:
    """A service that is ready; how long that took goes into `starts_s`."""
    began_s = time.perf_counter()
    with started(models, *(["--variants", variants] if variants else [])) as service:
        _ask(f"{service.url}/readyz")
        starts_s.append(time.perf_counter() - began_s)
        yield service


def _memory(process: psutil.Process) -> Memory:
    found = process.memory_full_info()
    return Memory(rss_bytes=found.rss, pss_bytes=found.pss)


def _bodies(variants: list[str], count: int) -> list[dict[str, object]]:
    """Lists of 1 to 32 texts of 3 to 120 words; the same on every run."""
    rng = random.Random(0)
    texts = lambda: [" ".join(rng.choices(WORDS, k=rng.randint(3, 120))) for _ in range(rng.choice((1, 1, 1, 8, 32)))]  # noqa: E731
    return [{"inputs": texts(), "variant": rng.choice(variants), "truncate": True} for _ in range(count)]


def _ask(url: str, body: dict[str, object] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=120) as response:
        return json.loads(response.read())


if __name__ == "__main__":
    main()
