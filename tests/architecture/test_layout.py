import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sparsebert", "training", "export", "service")
FILES = sorted(path for package in (*PACKAGES, "deploy/grafana") for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_answers_one_question_in_sight(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it answers"
    assert text.count("\n") <= 320
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 80] == []


def test_the_arrows_hold():
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    assert "5 kept, 0 broken" in result.stdout


def imported(package: str, without: str | None = None) -> set[str]:
    """Every module that the files of a package name in an import, as far as the dots go."""
    found: set[str] = set()
    files = [path for path in (ROOT / package).rglob("*.py") if without not in path.relative_to(ROOT / package).parts]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
    return found


def test_export_uses_only_what_says_what_a_masked_sparsebert_is():
    of_training = {name for name in imported("export") if name.split(".")[0] == "training"}
    assert of_training == {
        "training.checkpoint", "training.compaction", "training.geometry", "training.masking", "training.modeling",
    }  # fmt: skip


def test_the_contract_uses_three_packages():
    others = (
        {name.split(".")[0] for name in imported("sparsebert", without="client")}
        - set(sys.stdlib_module_names)
        - {"sparsebert"}
    )
    assert others == {"numpy", "pydantic", "safetensors"}


def test_the_client_uses_its_extra_and_nothing_of_the_contract_uses_the_client():
    of_client = imported("sparsebert/client")
    others = {name.split(".")[0] for name in of_client} - set(sys.stdlib_module_names) - {"sparsebert"}
    assert others == {"httpx", "httpx_retries", "pydantic"}
    rest = imported("sparsebert", without="client") | imported("service") | imported("training") | imported("export")
    assert not [name for name in rest if name.startswith("sparsebert.client")]


def test_the_service_uses_the_contract_and_its_own_packages():
    others = {name.split(".")[0] for name in imported("service")} - set(sys.stdlib_module_names) - {"service"}
    assert others == {
        "fastapi", "numpy", "onnxruntime", "opentelemetry", "prometheus_client", "psutil", "pydantic", "pydantic_core",
        "pydantic_settings", "pynvml", "ray", "sparsebert", "starlette", "structlog", "tokenizers", "uvicorn",
    }  # fmt: skip


def test_the_wheel_holds_every_package():
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert tuple(targets["wheel"]["packages"]) == PACKAGES


def test_contract_imports_its_three_packages_only():
    code = (
        "import sys, sparsebert.cli, sparsebert.inspect, sparsebert.checkpoint; "
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'fastapi', 'pandas', 'httpx'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_pinned_package_is_pinned_exactly():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and "==" not in line] == []
