"""docs/service.md tells every setting, route, error status and metric of the code, and none that is not there."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.app import PATHS, ROUTERS, label_sets, statuses
from service.arguments import allowed_values, default_text, env_name, flag_name
from service.cluster.settings import ClusterSettings
from service.counted import Outcome, Rejection, Side, Stage, VariantFacts, Verdict
from service.devices import EXTRAS
from service.gate import is_admin, is_open
from service.metrics import Metrics
from service.oip.reading import PASSED_OVER, PASSED_OVER_PREFIX
from service.oip.schemas import InferAnswer, InferParameters
from service.routing import VariantName
from service.schemas import CompareRequest, PredictRequest
from service.settings import Settings
from sparsebert.answers import (
    CompareAnswer,
    FolderAnswer,
    HealthAnswer,
    LoadAnswer,
    ModelsAnswer,
    PredictAnswer,
    UnloadAnswer,
)

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


def told(kind: type[Settings], fields: Iterable[str]) -> dict[str, list[str]]:
    """What a table of settings must say."""
    return {
        flag_name(name): [
            env_name(name),
            default_text(kind, name),
            f"{kind.model_fields[name].description} Allowed: {allowed_values(kind, name)}.",
        ]
        for name in fields
    }


@pytest.mark.parametrize(
    ("heading", "kind", "fields"),
    [
        ("Settings", Settings, list(Settings.model_fields)),
        ("On a cluster", ClusterSettings, [name for name in ClusterSettings.model_fields if name.startswith("ray")]),
    ],
)
def test_settings(heading: str, kind: type[Settings], fields: list[str]) -> None:
    written = {code(row[0]): [code(row[1]), code(row[2]), row[3].removesuffix(" |")] for row in rows(heading)}
    assert written == told(kind, fields)


def test_devices() -> None:
    assert {code(row[0]): code(row[1]) for row in rows("Devices")} == dict(EXTRAS)


def test_routes() -> None:
    assert {code(row[0]) for row in rows("Routes")} == {f"{method} {path}" for method, path in PATHS}


def test_who_is_let_in() -> None:
    table = PAGE.read_text().split("\n### Keys and limits\n")[1].split("| path |")[1].split("\n\n")[0]
    cells = [re.findall(r"`(.*?)`", line.split(" | ")[0]) for line in table.splitlines()[2:]]
    closed = [path for _, path in PATHS if not (is_open(path) or is_admin(path))]
    assert set(cells[0] + cells[1]) == {path for _, path in PATHS if is_open(path)}
    assert [is_admin(path.replace("...", "x")) for path in cells[2]] == [True, True]
    assert cells[3:] == [[]]
    assert "/v1/predict" in closed


def test_paths_of_the_metrics_are_the_routes_of_the_app() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    routed = {(method, route.path) for route in routes for method in route.methods}
    assert routed | {("GET", "/openapi.json")} == set(PATHS)


def test_error_statuses() -> None:
    assert {int(row[0]) for row in rows("Errors")} == set(statuses()) - {200}


def test_metrics() -> None:
    metrics = Metrics(label_sets(), statuses())
    for variant in ("dense", "sparse"):
        metrics.add_variant(
            VariantFacts(
                name=VariantName(model="demo", variant=variant),
                version="v",
                precision="fp32",
                provider="CPU",
                sha256="0",
                ort="1",
                load_s=1.0,
                memory_bytes=1,
                file_bytes=1,
            )
        )
    metrics.set_queue_limits(1, 1)
    metrics.set_gpu_memory("cuda:0", 1, scope="device")
    expected = {}
    for family in metrics.registry.collect():
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        name = family.name + ("_total" if family.type == "counter" else "")
        expected[name] = [family.type, ", ".join(labels) or "–", family.documentation]
    assert {code(row[0]): [*row[1:3], row[3].removesuffix(" |")] for row in rows("Metrics")} == expected
    assert set(metrics.names()) == set(expected)


ANSWERS = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
SCHEMAS = [
    PredictAnswer, CompareAnswer, ModelsAnswer, HealthAnswer, LoadAnswer, UnloadAnswer, FolderAnswer, InferAnswer,
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "schema"),
    list(zip(ANSWERS, SCHEMAS, strict=True)),
)
def test_answers_have_the_fields_of_the_schema(text: str, schema: type[BaseModel]) -> None:
    sparing = schema is InferAnswer
    assert schema.model_validate_json(text).model_dump(mode="json", exclude_none=sparing) == json.loads(text)


def test_parameters_of_the_protocol() -> None:
    section = PAGE.read_text().split("\n### Open Inference Protocol\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)) == set(InferParameters.model_fields)
    assert all(f"`{name}`" in section for name in (*PASSED_OVER, PASSED_OVER_PREFIX))


@pytest.mark.parametrize(("heading", "schema"), [("Predict", PredictRequest), ("Compare", CompareRequest)])
def test_fields_of_requests(heading: str, schema: type[BaseModel]) -> None:
    section = PAGE.read_text().split(f"\n### {heading}\n")[1].split("\n### ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(.*?)`", cell)} == set(schema.model_fields)


@pytest.mark.parametrize("values", [Outcome, Stage, Rejection, Verdict, Side])
def test_values_of_labels(values: type[Outcome]) -> None:
    section = PAGE.read_text().split("\n## Metrics\n")[1]
    assert ", ".join(value.value for value in values) in section
