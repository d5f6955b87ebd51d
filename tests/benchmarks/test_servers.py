import json
from pathlib import Path

import pytest

from benchmarks.http_load import Answer, Load
from benchmarks.servers import cluster
from benchmarks.servers.grid import LIMIT, Cell, capacity, cell_of, cells, read_records
from benchmarks.servers.install import PEERS, names
from benchmarks.servers.limit import PLANS, Plan, chunks, one_pass
from benchmarks.servers.measuring import fault, summary
from benchmarks.servers.registry import OURS, SERVERS
from benchmarks.servers.report import compare, summarise, table

ROOT = Path(__file__).parents[2]


def record(server, load, number=0, variant="sparse", **found):
    return {"variant": variant, "round": number, "load": load, "server": server, **found}


def answer(body, status=200, index=0):
    return Answer(index=index, at_s=0.1, latency_ms=index + 1.0, status=status, body=body)


def test_every_peer_has_a_server_requirements_and_a_place_in_the_registry():
    assert set(names()) == set(SERVERS) - {OURS}
    assert {path.stem for path in PEERS.glob("*.txt")} == {*names(), "common"}


def test_peers_compute_with_the_versions_of_ours():
    ours = set((ROOT / "constraints.txt").read_text().splitlines())
    common = (PEERS / "common.txt").read_text().splitlines()
    assert len(common) == 3
    assert set(common) <= ours
    for name in names():
        lines = (PEERS / f"{name}.txt").read_text().splitlines()
        assert lines[0] == "-r common.txt"
        assert all("==" in line for line in lines[1:])


@pytest.mark.parametrize("name", names())
def test_what_was_chosen_is_one_of_those_that_were_tried(name):
    assert dict(SERVERS[name].chosen) in [dict(one) for one in SERVERS[name].candidates]


def test_turns_go_by_round_then_load_then_server():
    found = cells("sparse", 1, ["ours", "mosec"])
    assert [(cell.load, cell.server) for cell in found] == [
        ("1", "ours"), ("1", "mosec"),
        ("16", "ours"), ("16", "mosec"), ("16", LIMIT),
        ("64", "ours"), ("64", "mosec"), ("64", LIMIT),
        ("open", "ours"), ("open", "mosec"),
    ]  # fmt: skip
    assert len(cells("sparse", 2, ["ours"])) == 12


def test_what_was_measured_is_read_again(tmp_path):
    file = tmp_path / "cells.jsonl"
    assert read_records(file) == {}
    file.write_text("".join(json.dumps(record("ours", "1", per_second=rate)) + "\n" for rate in (1.0, 2.0)))
    assert read_records(file) == {
        Cell(variant="sparse", round=0, load="1", server="ours"): record("ours", "1", per_second=2.0)
    }


def test_capacity_is_the_best_of_ours_in_that_round():
    found = [
        record("ours", "1", per_second=900.0),
        record("ours", "16", per_second=400.0),
        record("ours", "64", per_second=500.0),
        record("ours", "64", 1, per_second=700.0),
        record("mosec", "64", per_second=800.0),
    ]
    records = {cell_of(one): one for one in found}
    assert capacity(records, "sparse", 0) == 500.0
    assert capacity(records, "sparse", 1) == 700.0
    assert capacity(records, "dense", 0) is None


def test_ratios_are_made_within_a_round_against_the_best_peer_of_that_round():
    found = [
        record("ours", "16", 0, per_second=300.0), record("ours", "16", 1, per_second=600.0),
        record("a", "16", 0, per_second=100.0), record("a", "16", 1, per_second=300.0),
        record("b", "16", 0, per_second=150.0), record("b", "16", 1, per_second=200.0),
        record(LIMIT, "16", 0, per_second=400.0), record(LIMIT, "16", 1, per_second=600.0),
        record("ours", "open", 0, p99_ms=10.0),
        record("a", "open", 0, p99_ms=40.0), record("b", "open", 0, p99_ms=20.0),
        record("ours", "1", 0, added_ms=0.25),
    ]  # fmt: skip
    assert compare(found, ["a", "b"]) == {
        "best_peer_at_16": 2.0,
        "limit_at_16": 0.875,
        "best_peer_at_64": None,
        "limit_at_64": None,
        "p99_of_best_peer": 0.5,
        "added_ms": 0.25,
    }


def test_the_table_has_a_row_for_each_server_and_says_what_is_missing():
    found = [
        record("ours", "16", per_second=300.0, p50_ms=1.0, p95_ms=2.0, p99_ms=3.0, requests=10, errors=0,
               pss_bytes=90e6, uss_bytes=80e6),
        record("a", "16", per_second=100.0, p50_ms=4.0, p95_ms=5.0, p99_ms=6.0, requests=10, errors=2, unanswered=1,
               first_error="status 503"),
        record(LIMIT, "16", per_second=400.0),
    ]  # fmt: skip
    lines = table(summarise(found, ["sparse"], ["ours", "a", "absent"])).splitlines()
    assert (
        lines[4]
        == "| ours | – / 300 / – | 1.00 / – | 1.0 / 2.0 / 3.0 | – / – / – | – / – / – | – | – | 90 (80) | 0 + 0 of 10 |"
    )
    assert (
        lines[5] == "| a | – / 100 / – | 3.00 / – | 4.0 / 5.0 / 6.0 | – / – / – | – / – / – | – | – |  | 2 + 1 of 10 |"
    )
    assert lines[6].startswith("| limit | – / 400 / – | 0.75 / – |")
    assert "| throughput against the best peer, 16 connections | 3.00 |" in lines


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (answer(b'{"label": "good", "score": 1.0}'), None),
        (answer(b'{"label": "bad", "score": 1.0}'), "text 0 is good and not bad"),
        (answer(b"busy", status=503), "status 503: busy"),
        (answer(b"", status=0), "status 0: "),
        (answer(b"{}"), "KeyError('label') in {}"),
    ],
)
def test_an_answer_with_another_label_is_an_error_too(got, says):
    assert fault(SERVERS["fastapi"], got, "good") == says


def test_percentiles_and_errors_are_over_all_requests():
    answers = [answer(b'{"label": "good"}', index=index) for index in range(100)] + [
        answer(b"", status=503, index=100),
        answer(b"no answer", status=0, index=101),
    ]
    found = summary(SERVERS["fastapi"], Load(answers=answers, window_s=2.0), ["good"] * 102)
    assert [found[name] for name in ("p50_ms", "p95_ms", "p99_ms")] == pytest.approx([51.5, 96.95, 100.99])
    assert found["per_second"] == 50.0
    assert (found["requests"], found["errors"], found["unanswered"]) == (102, 1, 1)
    assert found["first_error"] == "status 503: "


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("ours", {"inputs": "a film"}, {"predictions": [{"label": "good"}]}),
        ("bentoml", {"texts": ["a film"]}, [{"label": "good"}]),
        (
            "mlserver",
            {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["a film"]}]},
            {"outputs": [{"data": ["good"]}]},
        ),
    ],
)
def test_servers_are_asked_in_their_own_words(name, body, said):
    assert SERVERS[name].body("a film") == body
    assert SERVERS[name].label(said) == "good"


def test_plans_of_the_limit_use_both_cores_and_can_be_named():
    assert {plan.callers * plan.threads for plan in PLANS} == {2}
    assert [Plan.parse(str(plan)) for plan in PLANS] == list(PLANS)
    assert chunks("abcde", 2) == [["a", "b"], ["c", "d"], ["e"]]


class Lengths:
    """Labels a text by its own length, and remembers the batches."""

    def __init__(self):
        self.batches = []

    def encode(self, texts):
        return [[0] * len(text) for text in texts]

    def answer(self, ids):
        self.batches.append([len(one) for one in ids])
        return [{"label": str(len(one))} for one in ids]


def test_the_limit_sorts_by_length_and_answers_in_order():
    classifier = Lengths()
    assert one_pass(classifier, ["aaa", "a", "aaaaa", "aa", "aaaa"], Plan(callers=1, threads=2, batch=2)) == [
        "3",
        "1",
        "5",
        "2",
        "4",
    ]
    assert classifier.batches == [[5, 4], [3, 2], [1]]


def test_what_ray_costs_is_told_by_the_ratios_of_each_round():
    def cell(way: str, number: int, connections: int, per_second: float) -> dict:
        times = {"p50_ms": 1.0, "p99_ms": 2.0, "cpu_ms": 3.0}
        told = {"way": way, "round": number, "connections": connections, "per_second": per_second}
        return {**told, **times, "errors": 0, "unanswered": 1}

    cells = [
        cell(way, number, connections, 100.0 * (number + 1) * (0.5 if way.startswith("Ray") else 1.0))
        for way in cluster.WAYS
        for number in range(2)
        for connections in cluster.CONNECTIONS
    ]
    rows = cluster.table(cells).splitlines()
    assert len(rows) == 2 + len(cluster.WAYS) * len(cluster.CONNECTIONS)
    assert rows[2] == "| one process, 1 thread | 1 | 150 | 1.0 | 2.0 | 3.00 | 1.00 | 2 |"
    assert rows[4] == "| Ray, 1 replica | 1 | 75 | 1.0 | 2.0 | 3.00 | 0.50 | 2 |"
