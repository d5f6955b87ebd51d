"""What does one server do under one load, and are its answers right?

Every answer's label is held against what the same file says of the text alone; that is done after the load, so
that it costs the server no CPU. Knows nothing about turns, rounds or tables.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_connections import LOST, OneConnection, post
from benchmarks.http_load import Answer, Load, closed_loop, open_loop, poisson_arrivals_s, run_precisely
from benchmarks.servers.peers.classifier import Classifier
from benchmarks.servers.registry import Server

BLOCK = 25
REST_S = 0.005
PERCENTILES = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The texts, and what a file says of each of them alone."""

    texts: Sequence[str]
    labels: Sequence[str]
    alone: Sequence[Classifier]


def bench(bundle: Path, texts: Sequence[str]) -> Bench:
    """The file alone with one thread and with two: what a text's own time is, is the lower of the two."""
    alone = [Classifier(bundle, threads=threads) for threads in (1, 2)]
    return Bench(texts=texts, labels=[alone[1].predict([text])[0]["label"] for text in texts], alone=alone)


def requests(server: Server, texts: Sequence[str]) -> list[bytes]:
    return [post(server.path, json.dumps(server.body(text)).encode()) for text in texts]


def settle(server: Server, port: int, bench: Bench, connections: int, seconds: float) -> None:
    """Answers that nobody measures, after a start or a pause; waits for what is left of an earlier load."""
    run_precisely(closed_loop(port, requests(server, bench.texts), connections, seconds, grace_s=60.0))


def closed(server: Server, port: int, bench: Bench, connections: int, seconds: float) -> dict[str, Any]:
    load = run_precisely(closed_loop(port, requests(server, bench.texts), connections, seconds))
    return summary(server, load, bench.labels)


def opened(server: Server, port: int, bench: Bench, per_second: float, seconds: float, seed: int) -> dict[str, Any]:
    arrivals_s = poisson_arrivals_s(per_second, seconds, seed)
    load = run_precisely(open_loop(port, requests(server, bench.texts), arrivals_s))
    return {**summary(server, load, bench.labels), "asked_per_second": per_second}


def alone(server: Server, port: int, bench: Bench, seconds: float) -> dict[str, Any]:
    """One connection and the file without a server, in turns, with the same texts."""
    connection, asked = OneConnection(port), requests(server, bench.texts)
    answers: list[Answer] = []
    own_ms: list[list[float]] = [[] for _ in bench.alone]
    until_s, first, took_s = time.perf_counter() + seconds, 0, 0.0
    while time.perf_counter() < until_s or not answers:
        block = [index % len(asked) for index in range(first, first + BLOCK)]
        for classifier, times_ms in zip(bench.alone, own_ms, strict=True):
            times_ms.extend(_own_ms(classifier, bench.texts[index]) for index in block)
        time.sleep(REST_S)  # threads of the session spin for a while after their last text
        for index in block:
            answers.append(_ask(connection, asked[index], index, took_s))
            took_s = answers[-1].at_s
        first += BLOCK
    connection.close()
    found = summary(server, Load(answers=answers, window_s=took_s), bench.labels)
    own = min(float(np.median(times_ms)) for times_ms in own_ms)
    return {**found, "own_ms": own, "added_ms": found["p50_ms"] - own}


def _ask(connection: OneConnection, request: bytes, index: int, since_s: float) -> Answer:
    began_s = time.perf_counter()
    status, body = connection.ask(request)
    took_s = time.perf_counter() - began_s
    return Answer(index=index, at_s=since_s + took_s, latency_ms=took_s * 1000, status=status, body=body)


def summary(server: Server, load: Load, labels: Sequence[str]) -> dict[str, Any]:
    """Percentiles are over all requests; an unanswered one counts with the time that it was waited for."""
    unanswered = sum(answer.status == LOST for answer in load.answers)
    wrong = [sentence for answer in load.answers if (sentence := fault(server, answer, labels[answer.index]))]
    percentiles = {name: float(np.percentile(load.latencies_ms, share)) for name, share in PERCENTILES.items()}
    return {
        "per_second": load.per_second,
        **percentiles,
        "requests": len(load.answers),
        "errors": len(wrong) - unanswered,
        "unanswered": unanswered,
        "first_error": wrong[0] if wrong else None,
    }


def fault(server: Server, answer: Answer, label: str) -> str | None:
    """What is wrong with an answer, if anything is."""
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:200].decode(errors='replace')}"
    try:
        said = server.label(json.loads(answer.body))
    except (ValueError, LookupError, TypeError) as error:
        return f"{error!r} in {answer.body[:200].decode(errors='replace')}"
    return None if said == label else f"text {answer.index} is {label} and not {said}"


def _own_ms(classifier: Classifier, text: str) -> float:
    began_s = time.perf_counter()
    classifier.predict([text])
    return (time.perf_counter() - began_s) * 1000
