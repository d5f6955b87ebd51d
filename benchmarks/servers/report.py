"""What do the measurements say: medians over rounds, ratios within a round, and a table of both?

Pure. A ratio is made of two measurements of the same round and load; the best peer is chosen anew in each round,
which is what is hardest to beat.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.servers.grid import BUSY, LIMIT, LOADS, OPEN
from benchmarks.servers.registry import OURS

Record = Mapping[str, Any]
Values = dict[int, float]  # by round
MEGABYTE = 1e6


def summarise(records: Sequence[Record], variants: Sequence[str], servers: Sequence[str]) -> dict[str, Any]:
    """By variant: what each server did, and how ours compares."""
    by_variant = {variant: [one for one in records if one["variant"] == variant] for variant in variants}
    return {
        variant: {
            "servers": {name: _server(found, name) for name in (*servers, LIMIT) if _of(found, name)},
            "ours": compare(found, [name for name in servers if name != OURS]),
        }
        for variant, found in by_variant.items()
    }


def compare(records: Sequence[Record], peers: Sequence[str]) -> dict[str, float | None]:
    """Ours against the best peer and against the limit."""
    found: dict[str, float | None] = {}
    for load in BUSY:
        ours = _values(records, OURS, load, "per_second")
        found[f"best_peer_at_{load}"] = _ratio(ours, _best(records, peers, load, "per_second", max))
        found[f"limit_at_{load}"] = _ratio(ours, _values(records, LIMIT, load, "per_second"))
    late = _values(records, OURS, OPEN, "p99_ms")
    found["p99_of_best_peer"] = _ratio(late, _best(records, peers, OPEN, "p99_ms", min))
    found["added_ms"] = _median(_values(records, OURS, "1", "added_ms"))
    return found


def _of(records: Sequence[Record], server: str) -> list[Record]:
    return [one for one in records if one["server"] == server]


def _server(records: Sequence[Record], server: str) -> dict[str, Any]:
    mine = _of(records, server)
    loads: dict[str, Any] = {}
    for load in LOADS:
        names = ("per_second", "p50_ms", "p95_ms", "p99_ms", "own_ms", "added_ms", "asked_per_second", "cpu_ms")
        values = {name: _median(_values(mine, server, load, name)) for name in names}
        loads[load] = {name: value for name, value in values.items() if value is not None}
        ours = _values(records, OURS, load, "per_second")
        loads[load]["ours_is_times_as_fast"] = _ratio(ours, _values(mine, server, load, "per_second"))
    weights = {
        name: max((one[name] for one in mine if name in one), default=None) for name in ("pss_bytes", "uss_bytes")
    }
    return {
        "loads": loads,
        **weights,
        "requests": sum(one.get("requests", 0) for one in mine),
        "errors": sum(one.get("errors", 0) for one in mine),
        "unanswered": sum(one.get("unanswered", 0) for one in mine),
        "first_error": next((one["first_error"] for one in mine if one.get("first_error")), None),
        "settings": next((one["settings"] for one in mine if "settings" in one), {}),
    }


def _values(records: Sequence[Record], server: str, load: str, name: str) -> Values:
    return {
        one["round"]: one[name]
        for one in records
        if one["server"] == server and one["load"] == load and one.get(name) is not None
    }


def _best(
    records: Sequence[Record], peers: Sequence[str], load: str, name: str, choose: Callable[[list[float]], float]
) -> Values:
    found = [_values(records, peer, load, name) for peer in peers]
    rounds = {number for values in found for number in values}
    return {number: choose([values[number] for values in found if number in values]) for number in rounds}


def _ratio(ours: Values, others: Values) -> float | None:
    return _median({number: ours[number] / others[number] for number in ours.keys() & others.keys() if others[number]})


def _median(values: Values) -> float | None:
    return median(values.values()) if values else None


COLUMNS = (
    "server",
    "req/s at 1 / 16 / 64",
    "ours is × as fast at 16 / 64",
    "p50 / p95 / p99 at 16, ms",
    "at 64, ms",
    "at 70%, ms",
    "added to the model's own time, ms",
    "CPU of a request at 64, ms",
    "memory PSS (USS), MB",
    "errors + unanswered, of requests",
)
HEAD = (f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|")


def table(summary: Mapping[str, Any]) -> str:
    """Markdown: a table for each variant, and one of the targets."""
    parts = []
    for variant, found in summary.items():
        rows = [_row(name, one) for name, one in found["servers"].items()]
        parts.append("\n".join([f"### `{variant}`", "", *HEAD, *rows]))
    return "\n\n".join([*parts, _targets(summary)]) + "\n"


def _row(name: str, found: Mapping[str, Any]) -> str:
    loads = found["loads"]
    rates = " / ".join(_number(loads[load].get("per_second"), 0) for load in ("1", *BUSY))
    ratios = " / ".join(_number(loads[load].get("ours_is_times_as_fast"), 2) for load in BUSY)
    late = " | ".join(
        " / ".join(_number(loads[load].get(name), 1) for name in ("p50_ms", "p95_ms", "p99_ms"))
        for load in (*BUSY, OPEN)
    )
    weight = f"{_megabytes(found['pss_bytes'])} ({_megabytes(found['uss_bytes'])})" if found["pss_bytes"] else ""
    added = _number(loads["1"].get("added_ms"), 2)
    cpu = _number(loads["64"].get("cpu_ms"), 2)
    faults = f"{found['errors']} + {found['unanswered']} of {found['requests']}"
    return f"| {name} | {rates} | {ratios} | {late} | {added} | {cpu} | {weight} | {faults} |"


def _targets(summary: Mapping[str, Any]) -> str:
    names = {
        "best_peer_at_16": "throughput against the best peer, 16 connections",
        "best_peer_at_64": "throughput against the best peer, 64 connections",
        "limit_at_16": "throughput against the limit, 16 connections",
        "limit_at_64": "throughput against the limit, 64 connections",
        "p99_of_best_peer": "p99 at 70% load against the best peer",
        "added_ms": "one connection: added to the model's own time, ms",
    }
    head = [
        "### Ours",
        "",
        "| | " + " | ".join(f"`{variant}`" for variant in summary) + " |",
        "|---" * (len(summary) + 1) + "|",
    ]
    rows = [
        f"| {words} | " + " | ".join(_number(found["ours"][name], 2) for found in summary.values()) + " |"
        for name, words in names.items()
    ]
    return "\n".join([*head, *rows])


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _megabytes(value: float) -> str:
    return f"{value / MEGABYTE:,.0f}"
