"""docs/operations.md names commands, files, profiles and variables that are there."""

import re
from pathlib import Path

import yaml

from service.arguments import env_name, flag_name
from service.cluster.settings import ClusterSettings
from service.gate import OPEN
from sparsebert.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", PAGE) + [
    line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def test_files_that_are_named_are_there():
    named = {path for text in CODE for path in re.findall(r"\bdeploy/[\w./-]+", text)}
    assert {"deploy/systemd/install.sh", "deploy/docker/try-without-docker.sh", "deploy/slurm"} <= named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_profiles_are_those_of_the_compose_file():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    there = {profile.partition("$")[0] for service in services.values() for profile in service["profiles"]}
    table = PAGE.split("| profile | what runs |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z]+)`", table, re.MULTILINE)) == there
    assert {name for text in CODE for name in re.findall(r"--profile (\w+)", text)} <= there
    assert {name for text in CODE for name in re.findall(r"run --rm --no-deps ([\w-]+)", text)} <= set(services)


def test_variables_before_a_command_are_those_of_env():
    explained = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env").read_text(), re.MULTILINE))
    named = {name for text in CODE for name in re.findall(r"^([A-Z_]+)=", text)}
    assert {"MODELS", "BIND", "API_KEYS_FILE", "GRAFANA_ADMIN_PASSWORD_FILE"} <= named
    settings = {env_name(field) for field in ClusterSettings.model_fields}
    assert named - {"ORT_DISABLE_TELEMETRY", "COMPOSE_ENV_FILES"} <= explained | settings


def test_commands_and_flags_exist():
    words = {command.word for command in COMMANDS}
    assert {word for text in CODE for word in re.findall(r"^sparsebert ([a-z]+)", text)} <= words
    flags = {flag_name(field) for field in ClusterSettings.model_fields}
    served = [text for text in CODE if text.startswith("sparsebert serve ")]
    assert {word for text in served for word in text.split() if word.startswith("--")} <= flags
    assert {text for text in CODE if re.fullmatch(r"--[a-z-]+", text)} <= flags | {"--rollback", "--init"}


def test_switches_of_the_scripts_exist():
    for script, command in (("install.sh", "install.sh"), ("update-models.sh", "sparsebert-update-models")):
        body = (ROOT / "deploy" / "systemd" / script).read_text()
        used = {flag for text in CODE for flag in re.findall(rf"{command} (--[a-z-]+)", text)}
        assert used
        assert [flag for flag in used if flag not in body] == []


def test_the_security_checklist_tells_every_path_that_stays_open_with_keys():
    checklist = PAGE.split("## Security checklist")[1].split("\n## ")[0]
    (said,) = re.findall(r"^\* \*\*What stays open with keys\.\*\* (.*)$", checklist, re.MULTILINE)
    assert set(re.findall(r"`(/[^`]*)`", said)) == OPEN


def test_kubernetes_has_a_way_back_too():
    table = PAGE.split("| what | how | test before | way back |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| (\w+, \w+) \|.*\| ([^|]*) \|$", table, re.MULTILINE))
    places = ("box", "Docker", "Kubernetes")
    assert rows.keys() >= {f"{what}, {where}" for what in ("models", "program") for where in places}
    assert "kubectl -n sparsebert rollout undo deployment/sparsebert" in rows["program, Kubernetes"]
