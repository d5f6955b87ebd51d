"""The service loads nothing of the offline half."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "onnx", "pandas", "training", "export", "datasets", "accelerate")
# A service needs these only when its settings ask for them.
ON_DEMAND = ("structlog", "opentelemetry.sdk")


def test_the_app_imports_nothing_heavy() -> None:
    code = (
        f"import sys, service.app, service.cli; print([name for name in {HEAVY + ON_DEMAND!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
