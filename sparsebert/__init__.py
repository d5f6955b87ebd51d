"""The contract between SparseBERT's three programs, and the `sparsebert` command.

Knows nothing about PyTorch, ONNX Runtime or HTTP: it imports numpy, pydantic and safetensors only.
"""

__version__ = "0.1.0"
