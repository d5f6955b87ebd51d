"""How many texts a second does the file itself give: a tokenizer and a session in one process, no HTTP?

    python -m benchmarks.servers.limit models/sst2/sparse-int8 --data-dir data/sst2

All texts are tokenised, sorted by length and computed in batches on two threads, again and again: by two threads
that compute a batch each, or one batch after the other with two threads. Without --plan all plans are tried in
turns on some of the texts, and the best is measured. Run as a process of its own, so that no server's threads or
memory are in it. Prints one line of JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.servers.peers.classifier import Classifier
from benchmarks.servers.texts import read_texts

CORES = 2
TRIAL_TEXTS = 256
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """So many threads with a batch each, and so many of the session for one batch."""

    callers: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.callers}x{self.threads}x{self.batch}"

    @classmethod
    def parse(cls, words: str) -> "Plan":
        callers, threads, batch = map(int, words.split("x"))
        return cls(callers=callers, threads=threads, batch=batch)


PLANS = tuple(
    Plan(callers=callers, threads=CORES // callers, batch=batch) for callers in (CORES, 1) for batch in (8, 16, 32)
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--plan", type=Plan.parse, help="callers x threads x batch, such as 2x1x8")
    options = parser.parse_args()
    texts = read_texts(options.data_dir)
    plan = options.plan or best_plan(options.bundle, texts[:TRIAL_TEXTS], options.seconds)
    classifier = Classifier(options.bundle, threads=plan.threads)
    one_pass(classifier, texts[:64], plan)
    per_second = rate(classifier, texts, plan, options.seconds)
    print(json.dumps({"plan": str(plan), "per_second": per_second}))


def best_plan(bundle: Path, texts: Sequence[str], seconds: float) -> Plan:
    """The fastest in the median of turns; at least two turns each."""
    classifiers = {threads: Classifier(bundle, threads=threads) for threads in {plan.threads for plan in PLANS}}
    rates: dict[Plan, list[float]] = {plan: [] for plan in PLANS}
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s or len(rates[PLANS[0]]) < 2:
        for plan in PLANS:
            rates[plan].append(rate(classifiers[plan.threads], texts, plan, 0.0))
    return max(PLANS, key=lambda plan: statistics.median(rates[plan]))


def rate(classifier: Classifier, texts: Sequence[str], plan: Plan, seconds: float) -> float:
    """Texts a second over whole passes, at least one."""
    began_s, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - began_s < seconds:
        one_pass(classifier, texts, plan)
        passes += 1
    return passes * len(texts) / (time.perf_counter() - began_s)


def one_pass(classifier: Classifier, texts: Sequence[str], plan: Plan) -> list[str]:
    """Labels of all texts, in order."""
    with ThreadPoolExecutor(plan.callers) as pool:
        parts = pool.map(classifier.encode, chunks(texts, -(-len(texts) // plan.callers)))
        ids = [one for part in parts for one in part]
        # The longest first, so that no thread ends with a long batch alone.
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
        batches = chunks(order, plan.batch)
        found = pool.map(lambda batch: classifier.answer([ids[index] for index in batch]), batches)
        labels = [""] * len(ids)
        for batch, answers in zip(batches, found, strict=True):
            for index, answer in zip(batch, answers, strict=True):
                labels[index] = answer["label"]
    return labels


def chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Lists of `size`, the last one maybe shorter."""
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


if __name__ == "__main__":
    main()
