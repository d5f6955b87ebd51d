"""Rules and alerts by Prometheus' own tools: are they valid, does each alert fire when it must and only then?"""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "deploy" / "prometheus"
UNIT_TESTS = sorted((Path(__file__).parent / "alerts").glob("*.yml"))
RULES = [
    rule
    for file in sorted((CONFIG / "rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RUNBOOK = (ROOT / "docs" / "operations.md").read_text().split("\n## Alerts\n")[1].split("\n## ")[0]


def promtool(tool, *words):
    done = subprocess.run([tool("promtool"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid_with_what_the_manual_adds_to_it(tool, tmp_path):
    place = shutil.copytree(CONFIG, tmp_path / "prometheus")
    config = place / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus", str(place)))
    others, alertmanager = re.findall(r"`(- targets: .*?)`", RUNBOOK)
    (place / "targets" / "ours.yml").write_text(others)
    (place / "alertmanagers" / "ours.yml").write_text(alertmanager)
    (watchdog,) = re.findall(r"```yaml\n(groups:.*?)```", RUNBOOK, re.DOTALL)
    (place / "rules" / "watchdog.yml").write_text(watchdog)
    said = promtool(tool, "check", "config", "--lint-fatal", config)
    assert "WARNING" not in said
    assert sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", said))) == len(RULES) + 1


def test_the_manual_s_alertmanager_sends_each_alert_to_somebody():
    (text,) = re.findall(r"```yaml\n(route:.*?)```", RUNBOOK, re.DOTALL)
    config = yaml.safe_load(text)
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} == {receiver["name"] for receiver in config["receivers"]}
    matched = dict(matcher.split("=") for route in routes[1:] for matcher in route["matchers"])
    (watchdog,) = re.findall(r"- alert: (\w+)", RUNBOOK)
    assert matched == {"alertname": watchdog, "severity": "critical"}
    assert {alert["labels"]["severity"] for alert in ALERTS.values()} == {"critical", "warning"}


def test_a_silent_batcher_is_told_before_kubernetes_restarts_it():
    """A scrape and an evaluation come later, and the probe begins to fail at the request's timeout."""
    bound_s = int(ALERTS["SparseBertBatcherSilent"]["expr"].split(" > ")[1])
    every = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["global"]
    late_s = sum(int(every[name].removesuffix("s")) for name in ("scrape_interval", "evaluation_interval"))
    pod = yaml.safe_load((ROOT / "deploy" / "k8s" / "base" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    probe = pod["containers"][0]["livenessProbe"]
    restart_s = Settings().request_timeout_s + (probe["failureThreshold"] - 1) * probe["periodSeconds"]
    assert bound_s + late_s <= restart_s


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_an_alert_fires_when_it_must_and_only_then(tool, file):
    promtool(tool, "test", "rules", file)


def test_every_alert_is_seen_firing_and_not_firing():
    assert [file.stem for file in UNIT_TESTS] == sorted(ALERTS)
    for file in UNIT_TESTS:
        seen = [one for case in yaml.safe_load(file.read_text())["tests"] for one in case["alert_rule_test"]]
        assert {one["alertname"] for one in seen} == {file.stem}
        assert {bool(one["exp_alerts"]) for one in seen} == {True, False}, file.stem


def test_every_alert_has_its_section_and_every_section_its_alert():
    headings = re.findall(r"^### (SparseBert\w+)$", RUNBOOK, re.MULTILINE)
    assert headings == list(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_where_and_how_much(name):
    alert = ALERTS[name]
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    said = alert["annotations"]["summary"] + alert["annotations"]["description"]
    if name != "SparseBertNoTarget" and "fleet:" not in alert["expr"]:
        assert "{{ $labels.instance }}" in alert["annotations"]["summary"]
    if name not in ("SparseBertTargetDown", "SparseBertKeysNotReadAgain"):  # yes or no, and no is all they tell
        assert "{{ $value" in said
    if any(word in alert["expr"] for word in ("variant:", "pair:", "fleet:", "batcher", "model_ready")):
        assert "{{ $labels.model }}/{{ $labels.variant }}" in alert["annotations"]["summary"]


def test_rules_ask_for_metrics_that_the_service_has():
    rows = (ROOT / "docs" / "service.md").read_text().split("\n## Metrics\n")[1]
    there = set(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE))
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {name for rule in RULES for name in re.findall(r"[\w:]*(?:sparsebert_|process_)[\w:]+", rule["expr"])}
    assert {name.removesuffix("_bucket") for name in asked - recorded} <= there
    # Nothing is recorded in vain.
    assert recorded <= asked


def test_the_operator_gets_the_same_rules():
    program = runpy.run_path(str(CONFIG / "operator_rules.py"))
    fresh = program["build"](CONFIG / "rules")
    assert program["MANIFEST"].read_text() == fresh, "stale; run `python deploy/prometheus/operator_rules.py`"
    groups = yaml.safe_load(fresh)["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == RULES
