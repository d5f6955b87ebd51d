"""Does the service answer a hundred thousand requests, good and bad, and is it then as it was before?

    python -m benchmarks.soak --models models
    python -m benchmarks.soak --models models --variants sparse-int8 --requests 10000

Starts `sparsebert serve` in a process of its own with small bounds, so that they are met, and with a user's, a
limited and an admin's key. Many clients send mixed requests, while the last variant is loaded, loaded again and,
where there are others, unloaded; after every thousand it is unloaded and loaded once more while nothing else is
asked, and memory is read. Ends with 1 when a request was not answered, got a status that its kind does not allow
or labels other than the tokenizer and ONNX Runtime give without the service, when the service's counters differ
from what the clients counted, when anything is in flight afterwards, when what was unloaded stays in memory, when
the log has a traceback, or (judged from 50,000 requests on) when resident memory grows by more than 5 MB in
100,000 requests.
"""

import argparse
import asyncio
import json
import math
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import onnxruntime as ort
import psutil
import tokenizers

from benchmarks.service_process import started
from benchmarks.soak.kinds import MAX_BODY_BYTES, MAX_ITEMS, PREDICT, TEXTS, Keys, Maker, good, load, unload_whole
from benchmarks.soak.load import Client, Found, run

BOUNDS = (
    "--max-request-items", str(MAX_ITEMS), "--max-queue-items", str(2 * MAX_ITEMS),
    "--max-body-bytes", str(MAX_BODY_BYTES),
)  # fmt: skip
MAX_GROWTH_BYTES = 5e6
PER = 100_000
PART = 1000
LIMIT = "2/second"
# In a shorter run what is still warming up looks like growth.
JUDGED_FROM = 50_000
COUNTED = re.compile(
    r'^sparsebert_http_requests_total\{method="(\w+)",route="(.*?)",status="(\d+)"\} (\d+)', re.MULTILINE
)
AT_REST = re.compile(r"^sparsebert_(?:inflight_requests|queue_depth|queue_tokens)\{.*\} (\S+)$", re.MULTILINE)


@dataclass(kw_only=True)
class Memory:
    """Resident memory of the service at rest: after how many requests, and bytes."""

    process: psutil.Process
    samples: list[tuple[int, int]] = field(default_factory=list)

    def read(self, num_requests: int) -> None:
        self.samples.append((num_requests, self.process.memory_info().rss))

    def growth_bytes(self) -> float:
        """Of 100,000 requests, by the run's second half: the median slope between any two samples.

        What was unloaded leaves some MB behind at times, and takes them with it later: a fitted line follows them.
        """
        half = self.samples[len(self.samples) // 2 :]
        slopes = [(more - less) / (later - sooner) for (sooner, less), (later, more) in combinations(half, 2)]
        return statistics.median(slopes) * PER if slopes else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--variants", default="", help="comma list, as in sparsebert serve")
    parser.add_argument("--requests", type=int, default=PER)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keys_file = Path(folder) / "keys.jsonl"
        keys = Keys(
            user=new_key(keys_file, "user"),
            limited=new_key(keys_file, "limited", "--rate-limit", LIMIT),
            admin=new_key(keys_file, "admin", "--scope", "admin"),
        )
        flags = [*BOUNDS, "--api-keys", str(keys_file), *(["--variants", options.variants] if options.variants else [])]
        with started(options.models, *flags) as service:
            found, memory = Found(), Memory(process=psutil.Process(service.process.pid))
            maker, reference = make_ready(service.port, options, keys)
            began_s, before = time.monotonic(), counted(service.port)
            ask(partial(Client, service.port, reference, found), maker, memory, options)
            took_s = time.monotonic() - began_s
            wrong = [*found.wrong, *differences(found, counted(service.port) - before)]
            wrong += after(service.port, reference, maker)
            service.process.terminate()
            wrong += ended(*service.ending())
    if options.requests >= JUDGED_FROM and memory.growth_bytes() > MAX_GROWTH_BYTES:
        wrong.append(f"memory grows by {memory.growth_bytes() / 1e6:.1f} MB in {PER} requests")
    tell(found, memory, took_s)
    sys.exit("\n".join(wrong[:20]) or None)


def make_ready(port: int, options: argparse.Namespace, keys: Keys) -> tuple[Maker, dict[str, dict[str, str]]]:
    """What makes the requests to what is served, and the label of each text by each variant."""
    listed = json.loads(read(port, "/v1/models", keys.user))["variants"]
    [model, *others] = {one["model"] for one in listed}
    if others:
        sys.exit("name the variants of one model with --variants")
    *rest, last = (one["variant"] for one in listed)
    rng = random.Random(options.seed)
    maker = Maker(model=model, variants=tuple(rest) or (last,), changing=last, keys=keys, rng=rng)
    return maker, {name: reference_labels(options.models / model / name) for name in (*rest, last)}


def ask(connect: Callable[[], Client], maker: Maker, memory: Memory, options: argparse.Namespace) -> None:
    """All requests, in parts; after each the service rests, and what changes is unloaded and loaded again."""
    for begun in range(0, options.requests, PART):
        memory.read(begun)
        clients = [connect() for _ in range(options.clients)]
        asyncio.run(run(clients, (maker.next() for _ in range(min(PART, options.requests - begun)))))
        wait_for_rest(clients[0])
        asyncio.run(run([connect()], iter((unload_whole(maker), load(maker)))))
    memory.read(options.requests)


def ended(code: int, log: str) -> list[str]:
    """Sentences on how it ended."""
    wrong = [f"the service ended with {code}"] if code else []
    if "Traceback" in log:
        wrong.append("the log has a traceback: " + log[log.index("Traceback") :][:3000])
    return wrong


def new_key(file: Path, name: str, *flags: str) -> str:
    command = [sys.executable, "-m", "sparsebert", "key", "--api-keys", str(file), "--name", name, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def tell(found: Found, memory: Memory, took_s: float) -> None:
    kinds: dict[str, dict[str, int]] = {}
    for (kind, outcome), number in sorted(found.outcomes.items()):
        kinds.setdefault(kind, {})[outcome] = number
    for kind, outcomes in kinds.items():
        print(f"{kind:48} " + ", ".join(f"{outcome}: {number}" for outcome, number in outcomes.items()))
    at = [memory.samples[int(share * (len(memory.samples) - 1))][1] / 1e6 for share in (0, 0.1, 0.5, 1)]
    print(f"{found.num_requests} requests in {took_s:.0f} s, {found.num_checked} labels compared with the reference")
    print("resident at 0, 10, 50 and 100% of the run: " + ", ".join(f"{one:.1f}" for one in at) + " MB")
    print(f"growth in {PER} requests, by the second half: {memory.growth_bytes() / 1e6:.2f} MB")


def reference_labels(bundle: Path) -> dict[str, str]:
    """The label of each text by the tokenizer and ONNX Runtime alone."""
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle / "tokenizer.json"))
    labels = json.loads((bundle / "manifest.json").read_text())["labels"]
    session = ort.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    found = {}
    for text in TEXTS:
        encoded = tokenizer.encode(text)
        feeds = {
            "input_ids": [encoded.ids],
            "attention_mask": [encoded.attention_mask],
            "token_type_ids": [encoded.type_ids],
        }
        [logits_BC] = session.run(None, feeds)
        found[text] = labels[int(logits_BC[0].argmax())]
    return found


def read(port: int, path: str, key: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"X-API-Key": key})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def counted(port: int) -> Counter[tuple[str, str, int]]:
    """The service's own count of answers, but of /metrics, which is asked for it."""
    found = COUNTED.findall(read(port, "/metrics"))
    return Counter({(one, route, int(status)): int(n) for one, route, status, n in found if route != "/metrics"})


def differences(found: Found, told: Counter[tuple[str, str, int]]) -> list[str]:
    """Sentences on what service and clients count differently; only of those who vanished may it know more."""
    more = Counter(told)
    more.subtract(found.answered)
    elsewhere = {key: number for key, number in more.items() if number and key[1] != PREDICT}
    wrong = [f"the service counts {number:+} of {key} against its clients" for key, number in elsewhere.items()]
    of_vanished = {key: number for key, number in more.items() if number and key[1] == PREDICT}
    statuses = {status for _, _, status in of_vanished}
    if min(of_vanished.values(), default=0) < 0 or sum(of_vanished.values()) > found.num_vanished:
        wrong.append(f"of {found.num_vanished} clients that vanished the service counts {of_vanished}")
    if not statuses <= {200, 429, 499}:
        wrong.append(f"clients that vanished were told {of_vanished}")
    return wrong


def wait_for_rest(client: Client) -> None:
    """Until nothing waits or is in flight any more, for a minute at most."""
    ends_s = time.monotonic() + 60
    while any(float(value) for value in AT_REST.findall(read(client.port, "/metrics"))):
        if time.monotonic() > ends_s:
            client.found.wrong.append("something is in flight or waits for ever")
            return
        time.sleep(0.1)


def after(port: int, reference: dict[str, dict[str, str]], maker: Maker) -> list[str]:
    """Sentences on good requests that are not answered rightly any more."""
    found = Found()
    asyncio.run(run([Client(port, reference, found)], (good(maker) for _ in range(100))))
    if found.answered != {("POST", PREDICT, 200): 100}:
        found.wrong.append(f"afterwards 100 good requests are answered with {found.answered}")
    return found.wrong


if __name__ == "__main__":
    main()
