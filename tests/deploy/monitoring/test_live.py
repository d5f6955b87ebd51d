"""Do all queries of rules and dashboards find data, in a real Prometheus that watches a real service under load?"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DASHBOARDS = sorted((Path(__file__).parents[3] / "deploy" / "grafana" / "dashboards").rglob("*.json"))
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


def test_the_service_is_watched(prometheus):
    assert {one.labels["variant"] for one in prometheus.wait_for("sparsebert_model_ready == 1")} == {
        "dense", "sparse", "sparse-int8",
    }  # fmt: skip
