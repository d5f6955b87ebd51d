"""Serves model bundles over HTTP with ONNX Runtime.

Never imports PyTorch, Transformers, training or export.
"""

import sparsebert  # noqa: F401 - tells ONNX Runtime to send nothing, before anything here imports it
