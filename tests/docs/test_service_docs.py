"""docs/service.md tells every setting, route, error status and metric of the code, and none that is not there."""

import re
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from service.app import PATHS, ROUTERS, label_sets, statuses
from service.metrics import Metrics, Outcome, Rejection, Stage
from service.settings import Settings, allowed_values, default_text, env_name, flag_name

PAGE = Path(__file__).parents[2] / "docs" / "service.md"


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading of the second level, without its head."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines is not None
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()]
    return table[2:]


def code(cell: str) -> str:
    """What stands between the first two backticks."""
    return cell.split("`")[1]


def test_settings() -> None:
    expected = {
        flag_name(name): [
            env_name(name),
            default_text(name),
            f"{field.description} Allowed: {allowed_values(name)}.",
        ]
        for name, field in Settings.model_fields.items()
    }
    written = {code(row[0]): [code(row[1]), code(row[2]), row[3].removesuffix(" |")] for row in rows("Settings")}
    assert written == expected


def test_routes() -> None:
    assert {code(row[0]) for row in rows("Routes")} == {f"{method} {path}" for method, path in PATHS}


def test_paths_of_the_metrics_are_the_routes_of_the_app() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    routed = {(method, route.path) for route in routes for method in route.methods}
    assert routed | {("GET", "/openapi.json")} == set(PATHS)


def test_error_statuses() -> None:
    assert {int(row[0]) for row in rows("Errors")} == set(statuses()) - {200}


def test_metrics() -> None:
    metrics = Metrics(label_sets(), statuses())
    families = {family.name: family.type for family in metrics.registry.collect()}
    expected = {name + ("_total" if kind == "counter" else ""): kind for name, kind in families.items()}
    assert {code(row[0]): row[1] for row in rows("Metrics")} == expected
    assert set(metrics.names()) == set(expected)


@pytest.mark.parametrize("values", [Outcome, Stage, Rejection])
def test_values_of_labels(values: type[Outcome]) -> None:
    section = PAGE.read_text().split("\n## Metrics\n")[1]
    assert ", ".join(value.value for value in values) in section
