"""The service loads nothing of the offline half."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "onnx", "pandas", "training", "export", "datasets", "accelerate")


def test_the_app_imports_nothing_heavy() -> None:
    code = f"import sys, service.app, service.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
