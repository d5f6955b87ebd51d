"""How is a real bundle made that is tiny: a word tokenizer, and a graph that adds up a row of a table for each word?"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sparsebert.manifest import seal

WORDS = ("good", "bad", "fine", "awful", "film", "plot", "the", "a", "very", "not")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)
LABELS = ("negative", "positive")
MAX_LENGTH = 16


def build_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def build_table(seed: int) -> np.ndarray:
    """Logits of each word, of shape [vocabulary, labels]."""
    return np.random.default_rng(seed).normal(size=(len(VOCABULARY), len(LABELS))).astype(np.float32)


def build_graph(table: np.ndarray) -> onnx.ModelProto:
    """logits = sum over real tokens of table[id] × (1 + token type)."""
    free = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, free)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Add", ["token_type_ids", "one"], ["types"]),
        helper.make_node("Mul", ["attention_mask", "types"], ["weights"]),
        helper.make_node("Cast", ["weights"], ["weights_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights_float", "last"], ["weights_last"]),
        helper.make_node("Mul", ["rows", "weights_last"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["logits"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([-1]), "last"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array(1), "one"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    graph = helper.make_graph(nodes, "tiny", inputs, [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def logits_of(table: np.ndarray, text: str, text_pair: str | None = None) -> np.ndarray:
    """What the graph must say, computed with numpy alone."""
    encoded = build_tokenizer().encode(text, text_pair)
    weights = np.array(encoded.type_ids) + 1
    return (table[encoded.ids] * weights[:, None]).sum(axis=0)


def build_manifest(model: str, variant: str, pair: bool, folder: Path) -> dict:
    geometry = {
        "hidden_size": 4, "head_size": 2, "heads_L": [2], "neurons_L": [8], "vocabulary_size": len(VOCABULARY),
        "max_positions": MAX_LENGTH, "token_types": 2, "num_labels": len(LABELS),
    }  # fmt: skip
    inputs = [
        {"name": name, "dtype": "int64", "shape": [-1, -1]}
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    return {
        "schema_version": 2, "name": model, "variant": variant, "version": "0123456789ab", "labels": list(LABELS),
        "task": {"name": "sst2", "pair": pair}, "geometry": geometry, "dense_geometry": geometry,
        "inputs": inputs, "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, 2]}],
        "max_sequence_length": MAX_LENGTH, "precision": "fp32", "weight_range": None, "batch_invariant": True,
        "opset": 17, "operators": {"Gather": 1}, "form": {"layout": "padded"}, "tuned": False,
        "compact_difference": 0.0, "provenance": {"commit": "none"},
        "quality": {"metric": "accuracy", "value": 0.875, "data": "tiny", "num_examples": 8},
        "parity": {"max_logit_difference": 1e-6, "label_agreement": 1.0, "num_examples": 8},
        "parity_random_ids": {"max_logit_difference": 1e-6, "label_agreement": 1.0, "num_examples": 8},
        "size": {
            "parameters": 1000, "encoder_parameters": 500, "encoder_sparsity": 0.5, "macs": 4000,
            "macs_sequence_length": MAX_LENGTH,
        },
        "files": {
            name: {
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                "size_bytes": (folder / name).stat().st_size,
            }
            for name in ("model.onnx", "tokenizer.json", "golden.json")
        },
    }  # fmt: skip


def write_tiny_bundle(
    models: Path, model: str = "reviews", variant: str = "dense", *,
    seed: int = 0, pair: bool = False, golden_off_by: float = 0.0, spare_rows: int = 0, **manifest: object,
) -> Path:  # fmt: skip
    folder = models / model / variant
    folder.mkdir(parents=True)
    # Rows of 8 bytes that no word reads make it as large as a real one.
    table = np.pad(build_table(seed), ((0, spare_rows), (0, 0)))
    onnx.save(build_graph(table), folder / "model.onnx")
    build_tokenizer().save(str(folder / "tokenizer.json"))
    text_pair = "bad film" if pair else None
    golden = {
        "inputs": [{"text": "the good film", "text_pair": text_pair}],
        "logits": [[float(x) + golden_off_by for x in logits_of(table, "the good film", text_pair)]],
        "tolerance": 1e-3,
    }
    (folder / "golden.json").write_text(json.dumps(golden))
    written = build_manifest(model, variant, pair, folder) | manifest
    (folder / "manifest.json").write_text(json.dumps(seal(written)))
    return folder
