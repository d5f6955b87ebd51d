"""What is every peer given: a bundle's graph and tokenizer, and texts in, labels out.

The same code in every peer, so that only their serving differs. Imports no peer and nothing of this project,
because it runs in the peers' own virtual environments.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import tokenizers

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the thread budget is the session's


def settings() -> dict:
    """What the benchmark chose for this peer: numbers by name."""
    return json.loads(os.environ["BENCHMARK_SETTINGS"])


def bundle() -> Path:
    return Path(os.environ["BENCHMARK_BUNDLE"])


def port() -> int:
    return int(os.environ["BENCHMARK_PORT"])


def here() -> str:
    return str(Path(__file__).resolve().parent)


class Classifier:
    """A tokenizer and a session of ONNX Runtime."""

    def __init__(self, folder: Path, *, threads: int, spin: int = 1) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        self._labels = manifest["labels"]
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest["max_sequence_length"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", str(spin))
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def answer(self, ids: list[list[int]]) -> list[dict]:
        """The label of each text of one batch."""
        shape = (len(ids), max(map(len, ids)))
        input_ids_BS, mask_BS = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, one in enumerate(ids):
            input_ids_BS[row, : len(one)] = one
            mask_BS[row, : len(one)] = 1
        feeds = {"input_ids": input_ids_BS, "attention_mask": mask_BS, "token_type_ids": np.zeros(shape, np.int64)}
        logits_BC = self._session.run(["logits"], feeds)[0]
        powers_BC = np.exp(logits_BC - logits_BC.max(axis=1, keepdims=True))
        probabilities_BC = powers_BC / powers_BC.sum(axis=1, keepdims=True)
        best_B = probabilities_BC.argmax(axis=1).tolist()
        return [
            {"label": self._labels[best], "score": float(row[best])}
            for best, row in zip(best_B, probabilities_BC, strict=True)
        ]

    def predict(self, texts: list[str]) -> list[dict]:
        return self.answer(self.encode(texts))


def load() -> Classifier:
    """As the settings say."""
    chosen = settings()
    return Classifier(bundle(), threads=chosen["threads"], spin=chosen.get("spin", 1))


if __name__ == "__main__":
    print(load().predict(sys.argv[1:]))
