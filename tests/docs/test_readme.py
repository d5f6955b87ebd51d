"""README's commands are the code's: every line of its shell blocks is parsed by what it calls."""

import json
import re
import shlex
from pathlib import Path

import pytest

from export.cli import build_parser as export_parser
from export.latency_cli import build_parser as latency_parser
from service.key_cli import build_parser as key_parser
from service.schemas import CompareRequest, PredictRequest, parse
from service.settings import read_settings
from sparsebert.cli import COMMANDS
from training.flags import build_config, no_flags
from training.flags import build_parser as train_parser
from training.prune_cli import build_parser as prune_parser
from training.sensitivity_cli import build_parser as sensitivity_parser
from training.sweep.cli import build_parser as sweep_parser
from training.sweep.cli import read_axes, split_words
from training.sweep.plan import plan_sweep
from training.unstructured.cli import baseline_config
from training.unstructured.cli import build_parser as baseline_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.strip()]


def lines_of(word: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in LINES if line.startswith(f"{word} ")]


def test_every_line_is_checked_here():
    known = ("make ", "docker compose ", "sparsebert ", "curl ", "python3 -m venv ", ".venv/bin/pip ", "source .venv")
    assert [line for line in LINES if not line.startswith(known)] == []


def test_every_command_is_shown():
    assert {words[0] for words in lines_of("sparsebert")} == {command.word for command in COMMANDS}


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "train"], ids=" ".join)
def test_train_lines(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    build_config(train_parser().parse_args(words))


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "sweep"], ids=" ".join)
def test_sweep_lines(words):
    own, shared = split_words(words)
    options = sweep_parser().parse_args(own)
    plan_sweep(read_axes(options.grid, options.seeds), shared)


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "export"], ids=" ".join)
def test_export_lines(words):
    export_parser().parse_args(words)


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "prune"], ids=" ".join)
def test_prune_lines(words):
    prune_parser().parse_args(words)


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "baseline"], ids=" ".join)
def test_baseline_lines(words):
    baseline_config(baseline_parser().parse_args(words, namespace=no_flags()))


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "latency-table"], ids=" ".join)
def test_latency_table_lines(words):
    latency_parser().parse_args(words)


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "sensitivity"], ids=" ".join)
def test_sensitivity_lines(words):
    sensitivity_parser().parse_args(words)


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "serve"], ids=" ".join)
def test_serve_lines(words):
    read_settings(words, {})


@pytest.mark.parametrize("words", [w[1:] for w in lines_of("sparsebert") if w[0] == "key"], ids=" ".join)
def test_key_lines(words):
    key_parser().parse_args(words)


@pytest.mark.parametrize("words", lines_of("curl"), ids=" ".join)
def test_curl_lines(words):
    url = next(word for word in words if "localhost" in word)
    if "-d" not in words:
        assert url.endswith("/v1/models")
        return
    body = words[words.index("-d") + 1]
    parse(PredictRequest if url.endswith("/v1/predict") else CompareRequest, body.encode())
    json.loads(body)


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[0] for words in lines_of("make")} | set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"demo", "test", "models", "serve", "clean-models", "check"} <= named
    assert named <= targets


def test_the_first_commands_are_the_two():
    assert BLOCKS[0] == "make demo\nmake test\n"


def test_the_tree_is_the_repository_s():
    tree = re.search(r"## Where everything is\n\n```\n(.*?)```", README, re.DOTALL)
    shown = {line.split()[0].rstrip("/") for line in tree[1].splitlines()}
    own = {"README.md", "pyproject.toml"}
    there = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert shown <= there
    assert {name for name in there if (ROOT / name / "__init__.py").exists()} <= shown | own


def test_linked_documents_exist():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_environment_and_extras_named_in_readme_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"'\.?(?:sparsebert)?\[([a-z-]+)\]'", README))
    assert named
    assert named <= set(extras)
    assert {command.extra for command in COMMANDS if command.extra} <= set(extras)
