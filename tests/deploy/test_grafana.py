"""The dashboards: what is committed is what the program writes, asks for metrics that exist, and holds together."""

import json
import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from deploy.grafana import edge, frame
from deploy.grafana.pages import FOLDER, texts, write
from deploy.grafana.panels import number
from deploy.grafana.queries import at_least
from deploy.grafana.telling import About, Query
from service.app import label_sets, statuses
from service.counted import VariantFacts
from service.metrics import Metrics
from service.routing import VariantName

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
PAGES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PANELS = {
    f"{name}: {panel['title']}": panel
    for name, page in PAGES.items()
    for panel in page["panels"]
    if panel["type"] != "row"
}
EXPRESSIONS = {f"{where}, {one['refId']}": one["expr"] for where, panel in PANELS.items() for one in panel["targets"]}
SELECTOR = re.compile(r"([a-zA-Z_]\w*)\{(.*?)\}(?=[^\"]|$)")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
# What Prometheus adds to every series, and what it knows of itself.
TARGET, ITS_OWN = {"instance", "job"}, {"up", "ALERTS"}


def known() -> dict[str, list[dict[str, str]]]:
    """The labels of every series that the service shows, by name; on a GPU too."""
    metrics = Metrics(label_sets(), statuses())
    metrics.set_queue_limits(1, 1)
    metrics.set_gpu_memory("cuda:0", 1, scope="device")
    for variant in ("dense", "sparse"):
        metrics.add_variant(
            VariantFacts(
                name=VariantName(model="demo", variant=variant), version="v", precision="fp32", provider="CPU",
                sha256="0", ort="1", load_s=1.0, memory_bytes=1, file_bytes=1, gpu_memory_bytes=1,
            )
        )  # fmt: skip
    found: dict[str, list[dict[str, str]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


KNOWN = known()


def selectors(expr: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    for name, matchers in SELECTOR.findall(expr):
        yield name, MATCHER.findall(matchers)


def labels_of(name: str) -> set[str]:
    return {label for series in KNOWN[name] for label in series}


def test_committed_dashboards_are_those_that_the_program_writes(tmp_path):
    write(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == texts()
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    stale = [name for name in written.keys() | committed.keys() if written.get(name) != committed.get(name)]
    assert stale == [], "write them anew with `make dashboards`"


def test_there_are_three_pages_by_their_uids():
    assert {name: page["uid"] for name, page in PAGES.items()} == {name: name for name in PAGES}
    assert set(PAGES) == {"sparsebert-overview", "sparsebert-dense-sparse", "sparsebert-edge"}
    assert len({page["title"] for page in PAGES.values()}) == 3


@pytest.mark.parametrize("where", PANELS)
def test_a_panel_says_what_it_shows_and_in_which_unit(where):
    panel = PANELS[where]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["targets"]


def test_everything_asks_the_data_source_that_is_provisioned():
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    asked = {"type": source["type"], "uid": source["uid"]}
    for page in PAGES.values():
        parts = [*page["annotations"]["list"], *page["templating"]["list"]]
        panels = [panel for panel in page["panels"] if panel["type"] != "row"]
        parts += [*panels, *(target for panel in panels for target in panel["targets"])]
        assert [part["datasource"] for part in parts] == [asked] * len(parts)


def test_the_data_source_knows_how_often_prometheus_asks():
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_query_asks_for_series_that_the_service_shows(where):
    expr = EXPRESSIONS[where]
    found = list(selectors(expr))
    assert found
    bare = re.sub(r"\{.*?\}", "", expr)
    assert set(re.findall(r"\b(?:sparsebert|process)_\w+", bare)) <= {name for name, _ in found}
    for name, matchers in found:
        if name in ITS_OWN:
            continue
        assert name in KNOWN
        fixed = [(label, value) for label, _, value in matchers if "$" not in value]
        assert {label for label, _, _ in matchers} <= labels_of(name) | TARGET
        assert any(all(re.fullmatch(value, series[label]) for label, value in fixed) for series in KNOWN[name]), fixed


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_query_heeds_what_is_chosen(where):
    for name, matchers in selectors(EXPRESSIONS[where]):
        chosen = {label: (operator, value) for label, operator, value in matchers if "$" in value}
        if name == "ALERTS":
            continue
        assert chosen["instance"] == ("=~", "$instance")
        if name in ITS_OWN:
            continue
        assert set(chosen) == {"instance", *({"model", "variant", "baseline"} & labels_of(name))}
        assert {operator for operator, _ in chosen.values()} == {"=~"}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_series_are_told_apart_and_named_by_labels_that_they_have(where):
    expr = EXPRESSIONS[where]
    legend = next(one["legendFormat"] for one in target_of(where)["targets"] if where.endswith(one["refId"]))
    there = set().union(*(labels_of(name) for name, _ in selectors(expr) if name not in ITS_OWN)) | TARGET
    grouped = [set(re.findall(r"\w+", labels)) for labels in re.findall(r"\bby \((.*?)\)", expr)]
    kept = set.intersection(*grouped) if grouped else (set() if re.match(r"\w+\(", expr) else there)
    assert set().union(*grouped) <= there | {"le"}
    assert set(re.findall(r"{{(\w+)}}", legend)) <= kept


def target_of(where: str) -> dict:
    return PANELS[where.rpartition(", ")[0]]


def test_rates_have_the_width_of_the_screen_and_sums_the_time_that_is_shown():
    windows = {found for expr in EXPRESSIONS.values() for found in re.findall(r"(\w+)\([^()]*\[(.*?)\]", expr)}
    assert windows == {("rate", "$__rate_interval"), ("increase", "$__range"), ("changes", "$__range")}


def test_big_numbers_are_of_now():
    for where, panel in PANELS.items():
        over_time = panel["type"] == "timeseries"
        assert {(one["range"], one["instant"]) for one in panel["targets"]} == {(over_time, not over_time)}, where


@pytest.mark.parametrize("name", PAGES)
def test_every_choice_is_used_and_offers_what_there_is(name):
    page = PAGES[name]
    asked = [one["expr"] for panel in page["panels"] if panel["type"] != "row" for one in panel["targets"]]
    choices = {one["name"]: one["query"]["query"] for one in page["templating"]["list"]}
    used = {word for text in [*asked, *choices.values()] for word in re.findall(r"\$(\w+)", text)}
    assert used - {"__rate_interval", "__range"} == set(choices)
    for query in choices.values():
        metric, label = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", query).groups()
        assert label in labels_of(metric) | TARGET


def test_choices_of_the_pages():
    choices = {
        name: {one["label"]: one.get("current", {}).get("value") for one in page["templating"]["list"]}
        for name, page in PAGES.items()
    }
    everything = "$__all"
    assert choices == {
        "sparsebert-overview": {"Service": everything, "Model": everything, "Variant": everything},
        "sparsebert-dense-sparse": {"Service": everything, "Model": None, "Baseline": "dense", "Candidate": "sparse"},
        "sparsebert-edge": {"Box": None, "Model": everything, "Variant": everything},
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_page_links_to_the_others_in_sight(name):
    links = PAGES[name]["links"]
    assert {link["url"].removeprefix("/d/") for link in links} == set(PAGES) - {name}
    assert all(link["includeVars"] and link["keepTime"] and "placement" not in link for link in links)


@pytest.mark.parametrize("name", PAGES)
def test_panels_do_not_overlap_and_have_numbers_of_their_own(name):
    panels = PAGES[name]["panels"]
    ids = [panel["id"] for panel in panels]
    assert sorted(set(ids)) == ids
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_a_strip_has_no_gap_at_its_end():
    about = About(title="One", description="One.", unit="short")
    strip = frame.Strip(4, [number(about, Query("up", "")) for _ in range(5)])
    with pytest.raises(ValueError, match="Here: 5 panels do not divide a width of 24"):
        frame.page(frame.Page.EDGE, "", [], [frame.Section("Here", [strip])])


def test_both_sides_of_a_pair_have_the_same_colours_everywhere():
    pairs = [panel for where, panel in PANELS.items() if len(panel["targets"]) == 2 and panel["type"] == "timeseries"]
    colored = [panel["fieldConfig"]["overrides"] for panel in pairs if "baseline" in panel["targets"][0]["expr"]]
    assert len(colored) == 13
    assert all(overrides == colored[0] for overrides in colored)
    assert [(one["matcher"]["options"], one["properties"][0]["value"]["fixedColor"]) for one in colored[0]] == [
        ("A", "blue"),
        ("B", "orange"),
    ]


def test_limits_of_the_edge_box_are_those_that_it_is_given():
    unit = (ROOT / "deploy" / "systemd" / "sparsebert.service").read_text()
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["sparsebert-edge"]
    assert compose["deploy"]["resources"]["limits"] == {"cpus": str(edge.CPUS), "memory": "512m"}
    assert edge.MEMORY_BYTES == 512 * 1024 * 1024
    assert f"CPUQuota={100 * edge.CPUS}%" in unit
    assert "MemoryMax=512M" in unit
    pod = (ROOT / "deploy" / "k8s" / "overlays" / "edge" / "edge.yaml").read_text()
    assert f'limits: {{cpu: "{edge.CPUS}", memory: 512Mi}}' in pod


@pytest.mark.parametrize(
    ("hits", "tries", "expected"), [(90, 100, 0.8256), (1, 1, 0.2065), (0, 10, 0.0), (1000, 1000, 0.9962)]
)
def test_at_least_is_the_lower_end_of_wilsons_interval(hits, tries, expected):
    formula = at_least(str(hits), str(tries)).replace(" > 0", "")
    assert eval(formula, {"sqrt": math.sqrt}) == pytest.approx(expected, abs=5e-5)


def test_grafana_reads_the_folder_and_begins_with_the_overview():
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "files.yml").read_text())["providers"]
    there = provider["options"]["path"]
    assert f"./{FOLDER.relative_to(ROOT)}:{there}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{there}/sparsebert-overview.json"


def test_the_manual_has_every_page_and_its_choices():
    manual = (ROOT / "docs" / "operations.md").read_text()
    named = re.findall(r"^\| \[(.*?)\]\(http://127\.0\.0\.1:3000/d/(.*?)\)", manual, re.MULTILINE)
    assert {uid: f"SparseBERT: {title}" for title, uid in named} == {
        name: page["title"] for name, page in PAGES.items()
    }
