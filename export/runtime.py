"""What does a graph answer in ONNX Runtime? The only file of export that imports it.

Knows nothing about PyTorch. T tokens, C classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.texts import EncodedText
from sparsebert.errors import ExportError

Float32 = NDArray[np.float32]


class OnnxRunner:
    """A graph on the CPU."""

    def __init__(self, graph: Path | onnx.ModelProto, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # As in the service; and where graphs are timed in turns, the pools of the others would take the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own kinds, without a common base
            raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot load the graph: {error}") from error

    def logits(self, encoded: EncodedText) -> Float32:
        """Logits [C] of one text, alone in its batch."""
        row: Float32 = self.padded_logits([encoded])[0]
        return row

    def padded_logits(self, texts: Sequence[EncodedText]) -> Float32:
        """Logits [N, C] of all texts in one batch, padded with zeros to the longest."""
        logits_NC: Float32 = self.outputs(texts, ["logits"])[0]
        return logits_NC

    def outputs(self, texts: Sequence[EncodedText], names: Sequence[str]) -> list[Float32]:
        """Outputs of the graph by name for all texts in one batch, padded with zeros to the longest."""
        found: list[Float32] = self._session.run(list(names), pad(texts))
        return found

    def all_logits(self, texts: Sequence[EncodedText], on_text: Callable[[], object] = lambda: None) -> Float32:
        """Logits [N, C], each text alone in its batch; `on_text` is called after each."""
        rows = []
        for encoded in texts:
            rows.append(self.logits(encoded))
            on_text()
        return np.stack(rows)


def pad(texts: Sequence[EncodedText]) -> dict[str, NDArray[np.int64]]:
    """The graph's inputs for texts in one batch."""
    shape = (len(texts), max(len(text.token_ids) for text in texts))
    feeds = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for row, text in enumerate(texts):
        length = len(text.token_ids)
        feeds["input_ids"][row, :length] = text.token_ids
        feeds["attention_mask"][row, :length] = 1
        feeds["token_type_ids"][row, :length] = text.segments
    return feeds


def runtime_version() -> str:
    """The version of ONNX Runtime."""
    version: str = onnxruntime.__version__
    return version
