"""Which settings each pruner is tried with."""

from collections.abc import Callable
from typing import Any

from transformers import BertForSequenceClassification

from benchmarks.pruners.cutting import Pruner
from benchmarks.pruners.judging import as_sparse
from benchmarks.pruners.magnitude import Magnitude
from benchmarks.pruners.textpruner_scores import TextPruner
from benchmarks.pruners.torch_pruning_taylor import TorchPruning
from training.geometry import geometry_of
from training.modeling import SparseBertConfig

PRUNERS: dict[str, tuple[Callable[..., Pruner], dict[str, Any]]] = {
    "magnitude": (Magnitude, {}),
    "torch-pruning": (TorchPruning, {}),
    "torch-pruning:unnormalised": (TorchPruning, {"normalizer": None}),
    "torch-pruning:multivariable": (TorchPruning, {"multivariable": True}),
    "torch-pruning:more-heads": (TorchPruning, {"head_bias": 0.85}),
    "torch-pruning:fewer-heads": (TorchPruning, {"head_bias": 1.2}),
    "textpruner": (TextPruner, {}),
    "textpruner:even": (TextPruner, {"ffn_even_masking": True, "head_even_masking": True}),
    "textpruner:even-ffn": (TextPruner, {"ffn_even_masking": True}),
    "textpruner:head-first": (TextPruner, {"pruning_order": "head-first"}),
    "textpruner:logits": (TextPruner, {"use_logits": True}),
    "textpruner:more-heads": (TextPruner, {"head_bias": 0.85}),
    "textpruner:fewer-heads": (TextPruner, {"head_bias": 1.2}),
}


def new_pruner(name: str, model: BertForSequenceClassification, like: SparseBertConfig, cuts: int) -> Pruner:
    kind, settings = PRUNERS[name]
    return kind(like, geometry_of(as_sparse(model, like)), cuts, **settings)
