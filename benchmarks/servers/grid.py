"""Who is measured when? All servers of a variant are up, and take turns at every load of every round.

So what else the machine does hits those that are compared. Every measurement is a line of a file; what is there
is not measured again. Knows nothing about how a load is made.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.servers import measuring
from benchmarks.servers.processes import ROOT, Running, StartError, start
from benchmarks.servers.registry import OURS, Server

LIMIT = "limit"
OPEN = "open"
LOADS = ("1", "16", "64", OPEN)
BUSY = ("16", "64")
SHARE = 0.7
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measurement."""

    variant: str
    round: int
    load: str
    server: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of a run."""

    model: Path
    data_dir: Path
    texts: Sequence[str]
    servers: Sequence[Server]
    variants: Sequence[str]
    seconds: float
    rounds: int
    environments: Path
    output: Path


def cells(variant: str, rounds: int, servers: Sequence[str]) -> list[Cell]:
    """In the order in which they are measured; the limit has no single connection and no open loop."""
    return [
        Cell(variant=variant, round=number, load=load, server=name)
        for number in range(rounds)
        for load in LOADS
        for name in (*servers, *([LIMIT] if load in BUSY else []))
    ]


def read_records(file: Path) -> dict[Cell, Record]:
    """What is measured already."""
    lines = file.read_text().splitlines() if file.is_file() else []
    found = [json.loads(line) for line in lines]
    return {cell_of(one): one for one in found}


def cell_of(record: Mapping[str, Any]) -> Cell:
    return Cell(**{name: record[name] for name in ("variant", "round", "load", "server")})


def capacity(records: Mapping[Cell, Record], variant: str, number: int) -> float | None:
    """Requests a second of ours in this round, at the number of connections that gives more."""
    found = [
        record["per_second"]
        for cell, record in records.items()
        if (cell.variant, cell.round, cell.server) == (variant, number, OURS) and cell.load in BUSY
    ]
    return max(found, default=None)


@dataclass
class Turns:
    """Measures what is missing."""

    plan: Plan
    tell: Callable[[str], None]
    records: dict[Cell, Record] = field(default_factory=dict)

    def run(self) -> dict[Cell, Record]:
        self.plan.output.mkdir(parents=True, exist_ok=True)
        self.records = {cell: one for cell, one in read_records(self._file).items() if self._holds(one)}
        for variant in self.plan.variants:
            missing = [cell for cell in self._cells(variant) if cell not in self.records]
            if missing:
                self._variant(variant, missing)
        return self.records

    def _holds(self, record: Record) -> bool:
        """Whether a measurement was made as this run would make it."""
        chosen = {server.name: dict(server.chosen) for server in self.plan.servers}
        same = record["server"] == LIMIT or record["settings"] == chosen.get(record["server"], record["settings"])
        return same and record["seconds"] == self.plan.seconds

    @property
    def _file(self) -> Path:
        return self.plan.output / "cells.jsonl"

    def _cells(self, variant: str) -> list[Cell]:
        return cells(variant, self.plan.rounds, [server.name for server in self.plan.servers])

    def _variant(self, variant: str, missing: Sequence[Cell]) -> None:
        bundle = self.plan.model / variant
        bench = measuring.bench(bundle, self.plan.texts)
        wanted = {cell.server for cell in missing}
        with ExitStack() as stack:
            running = {
                server.name: one
                for server in self.plan.servers
                if server.name in wanted and (one := self._started(server, bundle, bench, stack)) is not None
            }
            for cell in missing:
                if cell.server == LIMIT:
                    self._note(cell, self._limit(bundle))
                elif cell.server in running:
                    self._turn(cell, running[cell.server], bench)

    def _started(self, server: Server, bundle: Path, bench: measuring.Bench, stack: ExitStack) -> Running | None:
        """Warm and waiting for its turn; None, told, when it does not start."""
        try:
            one = start(server, server.chosen, bundle, self.plan.environments, self.plan.output)
        except StartError as error:
            self.tell(f"{bundle.name}: {error}")
            return None
        stack.callback(one.stop)
        measuring.settle(server, one.port, bench, 16, 1.0)
        one.pause()
        return one

    def _turn(self, cell: Cell, running: Running, bench: measuring.Bench) -> None:
        server = next(one for one in self.plan.servers if one.name == cell.server)
        running.resume()
        try:
            measuring.settle(server, running.port, bench, 1 if cell.load == "1" else 16, 0.3)
            cpu_s = running.cpu_s()
            found = self._measure(cell, server, running.port, bench)
            cpu_s, memory = running.cpu_s() - cpu_s, running.memory()
        except OSError as error:
            self.tell(f"{cell}: {error}; its words are in {self.plan.output / server.name}.log")
            return
        finally:
            running.pause()
        cost = {
            "cpu_ms": cpu_s * 1000 / found["requests"],
            "pss_bytes": memory.pss_bytes,
            "uss_bytes": memory.uss_bytes,
        }
        self._note(cell, {**found, **cost, "settings": dict(server.chosen)})

    def _measure(self, cell: Cell, server: Server, port: int, bench: measuring.Bench) -> Record:
        seconds = self.plan.seconds
        if cell.load == "1":
            return measuring.alone(server, port, bench, seconds)
        if cell.load in BUSY:
            return measuring.closed(server, port, bench, int(cell.load), seconds)
        ours = capacity(self.records, cell.variant, cell.round)
        if ours is None:
            raise OSError("the open loop asks for a share of what ours can, and ours was not measured")
        return measuring.opened(server, port, bench, SHARE * ours, seconds, seed=cell.round)

    def _limit(self, bundle: Path) -> Record:
        """With the plan that was best before, if there was one."""
        plans = [
            one["plan"] for cell, one in self.records.items() if (cell.server, cell.variant) == (LIMIT, bundle.name)
        ]
        command = [sys.executable, "-m", "benchmarks.servers.limit", str(bundle), "--data-dir", str(self.plan.data_dir)]
        command += ["--seconds", str(self.plan.seconds), *(["--plan", plans[0]] if plans else [])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def _note(self, cell: Cell, found: Record) -> None:
        record = {
            "variant": cell.variant,
            "round": cell.round,
            "load": cell.load,
            "server": cell.server,
            **found,
            "seconds": self.plan.seconds,
        }
        self.records[cell] = record
        with self._file.open("a") as out:
            out.write(json.dumps(record) + "\n")
        late = "" if "p99_ms" not in found else f"  p99 {found['p99_ms']:.1f} ms  errors {found['errors']}"
        self.tell(
            f"{cell.variant} round {cell.round} {cell.load:>4} {cell.server:9} {found['per_second']:7.0f}/s{late}"
        )
