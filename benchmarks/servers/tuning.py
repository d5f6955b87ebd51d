"""Which settings suit a peer best?

Every candidate is measured in turns with ours at 16 and at 64 connections, so that what else the machine does
hits both. The score is the geometric mean of the two ratios, each the median over rounds, and 0 when there was an
error. Every score is a line of `tuning.jsonl`; what is there is not tried again.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.servers import measuring
from benchmarks.servers.grid import BUSY, Plan
from benchmarks.servers.processes import Running, StartError, start
from benchmarks.servers.registry import OURS, SERVERS, Server, Settings


def tune(plan: Plan, tell: Callable[[str], None]) -> None:
    """Try all candidates of the plan's peers on its last variant, and tell the best of each."""
    plan.output.mkdir(parents=True, exist_ok=True)
    file = plan.output / "tuning.jsonl"
    variant = plan.variants[-1]
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    with ExitStack() as stack:
        bench = measuring.bench(plan.model / variant, plan.texts)
        ours = start(SERVERS[OURS], {}, plan.model / variant, plan.environments, plan.output)
        stack.callback(ours.stop)
        measuring.settle(SERVERS[OURS], ours.port, bench, 16, 1.0)
        ours.pause()
        for server in (one for one in plan.servers if one.name != OURS):
            scores: list[tuple[float, Settings]] = []
            for settings in server.candidates:
                record = _known(done, server, variant, settings) or _try(plan, server, settings, ours, bench)
                if record not in done:
                    with file.open("a") as out:
                        out.write(json.dumps(record) + "\n")
                    tell(json.dumps(record))
                scores.append((record["score"], settings))
            tell(f"{server.name}: best is {max(scores, key=lambda pair: pair[0])[1]}")


def _known(done: list[dict[str, Any]], server: Server, variant: str, settings: Settings) -> dict[str, Any] | None:
    wanted = (server.name, variant, dict(settings))
    return next((one for one in done if (one["server"], one["variant"], one["settings"]) == wanted), None)


def _try(plan: Plan, server: Server, settings: Settings, ours: Running, bench: measuring.Bench) -> dict[str, Any]:
    about = {"server": server.name, "variant": plan.variants[-1], "settings": dict(settings)}
    try:
        running = start(server, settings, plan.model / plan.variants[-1], plan.environments, plan.output)
    except StartError as error:
        return {**about, "score": 0.0, "error": str(error)}
    try:
        measuring.settle(server, running.port, bench, 16, 1.0)
        ratios: dict[str, list[float]] = {load: [] for load in BUSY}
        rates: dict[str, list[float]] = {load: [] for load in BUSY}
        errors = 0
        for _ in range(plan.rounds):
            for load in BUSY:
                running.pause()
                ours.resume()
                base = measuring.closed(SERVERS[OURS], ours.port, bench, int(load), plan.seconds)
                ours.pause()
                running.resume()
                found = measuring.closed(server, running.port, bench, int(load), plan.seconds)
                ratios[load].append(found["per_second"] / base["per_second"])
                rates[load].append(found["per_second"])
                errors += found["errors"]
    finally:
        running.stop()
    score = 0.0 if errors else (median(ratios["16"]) * median(ratios["64"])) ** 0.5
    return {
        **about,
        "score": score,
        "per_second": {load: median(found) for load, found in rates.items()},
        "errors": errors,
    }
