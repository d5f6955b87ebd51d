"""How soon is `sparsebert serve` ready, and how much memory does it take: idle, and after many requests?

    python benchmarks/service_footprint.py --models models
    python benchmarks/service_footprint.py --models models --variants sparse-int8

Starts the service in a process of its own on a free port, asks /readyz until it is ready, sends requests of
mixed sizes from several threads, and reads the resident memory of the process.
"""

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

WORDS = ("the", "film", "was", "a", "slow", "but", "rather", "lovely", "story", "about", "two", "people", "who", "talk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--variants", default="", help="comma list, as in sparsebert serve")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    starts_s = []
    for _ in range(options.starts):
        process, url, ready_s = _start(options.models, options.variants)
        starts_s.append(ready_s)
        if len(starts_s) < options.starts:
            _stop(process)
    print(
        f"ready after {statistics.median(starts_s):.2f} s (median of {options.starts}, {max(starts_s):.2f} s at most)"
    )
    resident = psutil.Process(process.pid)
    print(f"resident when ready: {resident.memory_info().rss / 1e6:.0f} MB")
    variants = [one["variant"] for one in _ask(f"{url}/v1/models")["variants"]]
    bodies = _bodies(variants, options.requests)
    started_s = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as pool:
        texts = sum(pool.map(lambda body: len(_ask(f"{url}/v1/predict", body)["predictions"]), bodies))
    took_s = time.perf_counter() - started_s
    print(f"{len(bodies)} requests with {texts} texts to {', '.join(variants)} in {took_s:.1f} s")
    print(f"resident after them: {resident.memory_info().rss / 1e6:.0f} MB")
    _stop(process)


def _bodies(variants: list[str], count: int) -> list[dict[str, object]]:
    """Lists of 1 to 32 texts of 3 to 120 words; the same on every run."""
    rng = random.Random(0)
    texts = lambda: [" ".join(rng.choices(WORDS, k=rng.randint(3, 120))) for _ in range(rng.choice((1, 1, 1, 8, 32)))]  # noqa: E731
    return [{"inputs": texts(), "variant": rng.choice(variants), "truncate": True} for _ in range(count)]


def _start(models: Path, variants: str) -> tuple[subprocess.Popen[bytes], str, float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("sparsebert")), "serve", "--models", str(models), "--port", str(port)]
    started_s = time.perf_counter()
    process = subprocess.Popen(command + (["--variants", variants] if variants else []), stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            _ask(f"{url}/readyz")
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                sys.exit(f"the service ended with {process.returncode}; run it by hand to see why")
            time.sleep(0.01)
        else:
            return process, url, time.perf_counter() - started_s


def _ask(url: str, body: dict[str, object] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=120) as response:
        return json.loads(response.read())


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=30)


if __name__ == "__main__":
    main()
