"""Do all queries of rules and dashboards find data, in a real Prometheus that watches a real service under load?"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").rglob("*.json"))
RULES = [
    rule
    for file in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
# What may find nothing here, by a word of its expression, and why.
MAY_BE_EMPTY = {
    "sparsebert_gpu_memory_used_bytes": "no GPU computes",
    "gpu_load_delta": "no GPU computes",
    "ALERTS": "nothing is wrong",
}
DURATIONS = {"rate_interval": "1m", "interval": "15s", "range": "1h"}


def filled_in(expr: str) -> str:
    """The expression as Grafana sends it, with all of every variable chosen."""
    expr = re.sub(r"\$\{?__(rate_interval|interval|range)\b\}?", lambda found: DURATIONS[found[1]], expr)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", expr)


def expressions(part: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every query of a dashboard, and where in it: of panels, annotations and variables."""
    if isinstance(part, list):
        for index, one in enumerate(part):
            yield from expressions(one, f"{path}/{index}")
    elif isinstance(part, dict):
        for key, one in part.items():
            if key == "expr" and one:
                yield path, one
            elif key == "query" and isinstance(one, str) and (values := re.match(r"label_values\((.*), *(\w+)\)", one)):
                yield path, f"group by ({values[2]}) ({values[1]})"
            else:
                yield from expressions(one, f"{path}/{key}")


QUERIES = {
    f"{file.stem}{path}": filled_in(expr)
    for file in DASHBOARDS
    for path, expr in expressions(json.loads(file.read_text()))
}


def test_variables_are_filled_in():
    asked = 'rate(x{variant=~"$variant",model=~"${model:regex}"}[$__rate_interval]) / increase(x[${__range}])'
    assert filled_in(asked) == 'rate(x{variant=~".*",model=~".*"}[1m]) / increase(x[1h])'


def test_every_query_of_a_dashboard_is_found():
    dashboard = {
        "panels": [{"targets": [{"expr": "a"}, {"expr": ""}], "panels": [{"targets": [{"expr": "b"}]}]}],
        "templating": {"list": [{"query": {"query": 'label_values(up{job=~"x"}, instance)'}}]},
    }
    assert dict(expressions(dashboard)) == {
        "/panels/0/targets/0": "a",
        "/panels/0/panels/0/targets/0": "b",
        "/templating/list/0/query": 'group by (instance) (up{job=~"x"})',
    }


@pytest.mark.parametrize("where", QUERIES)
def test_a_query_of_a_dashboard_finds_data(prometheus, where):
    expr = QUERIES[where]
    if any(word in expr for word in MAY_BE_EMPTY):
        prometheus.query(expr)
    else:
        prometheus.wait_for(expr)


def with_bool(expr: str) -> str:
    """An alert's expression that tells 0 in the place of nothing where a comparison does not hold."""
    return re.sub(r"\s(==|>|<)\s", r" \1 bool ", expr)


def test_comparisons_tell_0_in_the_place_of_nothing():
    asked = 'a{x!="1"} > on (b) group_left () (2 * c)\n and d == 0'
    assert with_bool(asked) == 'a{x!="1"} > bool on (b) group_left () (2 * c)\n and d == bool 0'


@pytest.mark.parametrize("rule", [one for one in RULES if "record" in one], ids=lambda rule: rule["record"])
def test_a_recording_rule_finds_data(prometheus, rule):
    labels = ",".join(f'{name}="{value}"' for name, value in rule.get("labels", {}).items())
    prometheus.wait_for(f"{rule['record']}{{{labels}}}")


@pytest.mark.parametrize("rule", [one for one in RULES if "alert" in one], ids=lambda rule: rule["alert"])
def test_an_alert_finds_what_it_compares(prometheus, rule):
    prometheus.wait_for(with_bool(rule["expr"]))


def test_every_rule_is_evaluated_without_an_error(prometheus):
    def rules():
        return [one for group in prometheus.ask("rules")["groups"] for one in group["rules"]]

    found = prometheus.wait(rules, lambda rules: all(one["health"] != "unknown" for one in rules), "evaluated rules")
    assert [(one["name"], one["lastError"]) for one in found if one["health"] != "ok"] == []
    assert len(found) == len(RULES)


def test_what_is_recorded_is_right(prometheus):
    """By process and variant; requests that the client is to blame for do not count, and compares do."""
    failed = prometheus.wait_for("variant:sparsebert_failed_requests:ratio_rate5m")
    assert {(one.labels["model"], one.labels["variant"], one.value) for one in failed} == {
        ("reviews", "dense", 0.0), ("reviews", "sparse", 0.0), ("reviews", "sparse-int8", 0.0),
    }  # fmt: skip
    agreement = prometheus.wait_for('pair:sparsebert_agreement:ratio_rate1h{baseline="dense"}')
    assert {one.labels["variant"]: one.value for one in agreement} == pytest.approx(
        {"sparse": 0.75, "sparse-int8": 0.0}
    )
