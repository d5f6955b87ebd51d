"""Serves model bundles over HTTP with ONNX Runtime.

Never imports PyTorch, Transformers, training or export.
"""
