"""What does a graph answer in ONNX Runtime? The only file of export that imports it.

Knows nothing about PyTorch. T tokens, C classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.texts import EncodedText
from sparsebert.errors import ExportError

Float32 = NDArray[np.float32]


class OnnxRunner:
    """A graph on the CPU."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own kinds, without a common base
            raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot load the graph: {error}") from error

    def logits(self, encoded: EncodedText) -> Float32:
        """Logits [C] of one text, alone in its batch."""
        feeds = {
            "input_ids": np.array([encoded.token_ids], np.int64),
            "attention_mask": np.ones((1, len(encoded.token_ids)), np.int64),
            "token_type_ids": np.array([encoded.segments], np.int64),
        }
        row: Float32 = self._session.run(["logits"], feeds)[0][0]
        return row

    def all_logits(self, texts: Sequence[EncodedText], on_text: Callable[[], object] = lambda: None) -> Float32:
        """Logits [N, C], each text alone in its batch; `on_text` is called after each."""
        rows = []
        for encoded in texts:
            rows.append(self.logits(encoded))
            on_text()
        return np.stack(rows)


def runtime_version() -> str:
    """The version of ONNX Runtime."""
    version: str = onnxruntime.__version__
    return version
