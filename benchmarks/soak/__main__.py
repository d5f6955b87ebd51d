"""Does the service answer a hundred thousand requests, good and bad, and is it then as it was before?

    python -m benchmarks.soak --models models
    python -m benchmarks.soak --models models --variants sparse-int8 --requests 10000

Starts `sparsebert serve` in a process of its own with small bounds, so that they are met, and sends mixed
requests from many clients. Ends with 1 when a request was not answered, got a status that its kind does not
allow or labels other than the tokenizer and ONNX Runtime give without the service, when the service's counters
differ from what the clients counted, when anything is in flight afterwards, when its log has a traceback, or
(judged from 50,000 requests on) when its resident memory grows by more than 5 MB in 100,000 requests.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
import psutil
import tokenizers

from benchmarks.service_process import started
from benchmarks.soak.kinds import MAX_BODY_BYTES, MAX_ITEMS, PREDICT, TEXTS, Maker, good
from benchmarks.soak.load import Client, Found, run

BOUNDS = (
    "--max-request-items", str(MAX_ITEMS), "--max-queue-items", str(2 * MAX_ITEMS),
    "--max-body-bytes", str(MAX_BODY_BYTES),
)  # fmt: skip
MAX_GROWTH_BYTES = 5e6
PER = 100_000
# In a shorter run what is still warming up looks like growth.
JUDGED_FROM = 50_000
COUNTED = re.compile(
    r'^sparsebert_http_requests_total\{method="(\w+)",route="(.*?)",status="(\d+)"\} (\d+)', re.MULTILINE
)
AT_REST = re.compile(r"^sparsebert_(?:inflight_requests|queue_depth|queue_tokens)\{.*\} (\S+)$", re.MULTILINE)


@dataclass(kw_only=True)
class Memory:
    """Resident memory of the service over the run: how many requests were begun, and bytes."""

    process: psutil.Process
    samples: list[tuple[int, int]] = field(default_factory=list)

    def tick(self, begun: int) -> None:
        if begun % 500 == 0:
            self.samples.append((begun, self.process.memory_info().rss))

    def growth_bytes(self) -> float:
        """Of 100,000 requests: the slope of the straight line through all samples of the run's second half."""
        half = self.samples[len(self.samples) // 2 :]
        return statistics.linear_regression(*zip(*half, strict=True)).slope * PER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--variants", default="", help="comma list, as in sparsebert serve")
    parser.add_argument("--requests", type=int, default=PER)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    flags = [*BOUNDS, *(["--variants", options.variants] if options.variants else [])]
    with started(options.models, *flags) as service:
        process, port = service.process, service.port
        listed = json.loads(read(port, "/v1/models"))["variants"]
        [model, *others] = {one["model"] for one in listed}
        if others:
            sys.exit("name the variants of one model with --variants")
        variants = tuple(one["variant"] for one in listed)
        reference = {name: reference_labels(options.models / model / name) for name in variants}
        maker = Maker(model=model, variants=variants, rng=random.Random(options.seed))
        found, memory = Found(), Memory(process=psutil.Process(process.pid))
        began_s, before = time.monotonic(), counted(port)
        clients = [Client(port, reference, found) for _ in range(options.clients)]
        asyncio.run(run(clients, options.requests, maker.next, memory.tick))
        took_s = time.monotonic() - began_s
        wait_for_rest(port, found)
        wrong = [*found.wrong, *differences(found, counted(port) - before), *after(port, reference, maker)]
        process.terminate()
        code, log = service.ending()
        if code != 0:
            wrong.append(f"the service ended with {code}")
        if "Traceback" in log:
            wrong.append("the log has a traceback: " + log[log.index("Traceback") :][:3000])
    if options.requests >= JUDGED_FROM and memory.growth_bytes() > MAX_GROWTH_BYTES:
        wrong.append(f"memory grows by {memory.growth_bytes() / 1e6:.1f} MB in {PER} requests")
    tell(found, memory, took_s)
    sys.exit("\n".join(wrong[:20]) or None)


def tell(found: Found, memory: Memory, took_s: float) -> None:
    kinds: dict[str, dict[str, int]] = {}
    for (kind, outcome), number in sorted(found.outcomes.items()):
        kinds.setdefault(kind, {})[outcome] = number
    for kind, outcomes in kinds.items():
        print(f"{kind:20} " + ", ".join(f"{outcome}: {number}" for outcome, number in outcomes.items()))
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


def read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
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


def wait_for_rest(port: int, found: Found) -> None:
    """Until nothing waits or is in flight any more, for a minute at most."""
    ends_s = time.monotonic() + 60
    while any(float(value) for value in AT_REST.findall(read(port, "/metrics"))):
        if time.monotonic() > ends_s:
            found.wrong.append("something is in flight or waits for ever")
            return
        time.sleep(0.1)


def after(port: int, reference: dict[str, dict[str, str]], maker: Maker) -> list[str]:
    """Sentences on good requests that are not answered rightly any more."""
    found = Found()
    asyncio.run(run([Client(port, reference, found)], 100, lambda: good(maker), lambda _: None))
    if found.answered != {("POST", PREDICT, 200): 100}:
        found.wrong.append(f"afterwards 100 good requests are answered with {found.answered}")
    return found.wrong


if __name__ == "__main__":
    main()
