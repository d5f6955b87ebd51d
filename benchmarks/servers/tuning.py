"""Which settings suit a peer best?

Every candidate is measured in turns with ours at 16 and at 64 connections, so that what else the machine does
hits both. The score is the geometric mean of the two ratios, each the median over rounds, and 0 when there was an
error. Every score is a line of `tuning.jsonl`; what is there is not tried again.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from benchmarks.servers import measuring
from benchmarks.servers.grid import BUSY, Plan, Record
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
            for settings in server.candidates:
                if _known(done, server, variant, settings) is None:
                    done.append(_try(plan, server, settings, ours, bench))
                    with file.open("a") as out:
                        out.write(json.dumps(done[-1]) + "\n")
                    tell(json.dumps(done[-1]))
            tried = [one for one in done if (one["server"], one["variant"]) == (server.name, variant)]
            tell(f"{server.name}: best is {max(tried, key=lambda one: one['score'])['settings']}")


def _known(done: list[Record], server: Server, variant: str, settings: Settings) -> Record | None:
    wanted = (server.name, variant, dict(settings))
    return next((one for one in done if (one["server"], one["variant"], one["settings"]) == wanted), None)


def _try(plan: Plan, server: Server, settings: Settings, ours: Running, bench: measuring.Bench) -> Record:
    variant = plan.variants[-1]
    about = {"server": server.name, "variant": variant, "settings": dict(settings)}
    try:
        running = start(server, settings, plan.model / variant, plan.environments, plan.output)
    except StartError as error:
        return {**about, "score": 0.0, "failed": str(error)}
    try:
        measuring.settle(server, running.port, bench, 16, 1.0)
        running.pause()
        turns = [
            (load, _turn(SERVERS[OURS], ours, bench, int(load), plan), _turn(server, running, bench, int(load), plan))
            for _ in range(plan.rounds)
            for load in BUSY
        ]
    except OSError as error:
        return {**about, "score": 0.0, "failed": str(error)}
    finally:
        running.stop()
    return {**about, **_score(turns)}


def _turn(server: Server, running: Running, bench: measuring.Bench, connections: int, plan: Plan) -> Record:
    running.resume()
    cpu_s = running.cpu_s()
    found = measuring.closed(server, running.port, bench, connections, plan.seconds)
    found["cpu_ms"] = (running.cpu_s() - cpu_s) * 1000 / found["requests"]
    running.pause()
    return found


def _score(turns: Sequence[tuple[str, Record, Record]]) -> Record:
    """`cpu_ratio` is what a request takes of the CPU, against ours."""
    errors = sum(theirs["errors"] + theirs["unanswered"] for _, _, theirs in turns)
    ratios = {
        load: median(theirs["per_second"] / ours["per_second"] for one, ours, theirs in turns if one == load)
        for load in BUSY
    }
    cpu_ratio = median(theirs["cpu_ms"] / ours["cpu_ms"] for _, ours, theirs in turns)
    score = 0.0 if errors else (ratios["16"] * ratios["64"]) ** 0.5
    return {"score": score, "ratios": ratios, "cpu_ratio": cpu_ratio, "errors": errors}
