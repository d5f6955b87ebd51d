"""The contract between SparseBERT's three programs, and the `sparsebert` command.

Knows nothing about PyTorch, ONNX Runtime or HTTP: it imports numpy, pydantic and safetensors only.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime sends telemetry to its maker unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
