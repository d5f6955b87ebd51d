"""The compact model: masked units cut out of the weight matrices, the same function with smaller ones; and back.

Masks act on what the units feed (the output projections), so cutting the columns there and the rows that
made the units is exact whatever biases and activation are. Knows nothing about how masks were chosen.

L layers, H heads, E head size, F neurons.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsebert.masks import MaskSet
from training.geometry import geometry_of
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification, SparseBertLayer


def compact(model: SparseBertForSequenceClassification, masks: MaskSet) -> SparseBertForSequenceClassification:
    """A new model without the masked units, in evaluation mode, on the CPU; `model` stays as it is.

    A layer of masks without any unit removes that block, its LayerNorm included.
    Raises ValueError when the masks have other sizes than the model.
    """
    geometry = geometry_of(model)
    if any(heads != masks.heads_LH.shape[1] for heads in geometry.heads_L) or any(
        neurons != masks.neurons_LF.shape[1] for neurons in geometry.neurons_L
    ):
        raise ValueError(f"masks {masks.heads_LH.shape}, {masks.neurons_LF.shape} do not fit {geometry}")
    values = model.config.to_dict() | {
        "heads_per_layer": list(masks.kept_heads_L()),
        "neurons_per_layer": list(masks.kept_neurons_L()),
    }
    small = SparseBertForSequenceClassification(SparseBertConfig(**values))
    with torch.no_grad():
        _copy(model.bert.embeddings, small.bert.embeddings)
        if model.bert.embeddings_project is not None and small.bert.embeddings_project is not None:
            _copy(model.bert.embeddings_project, small.bert.embeddings_project)
        _copy(model.bert.pooler, small.bert.pooler)
        _copy(model.classifier, small.classifier)
        pairs = zip(model.bert.encoder.layer, small.bert.encoder.layer, masks.heads_LH, masks.neurons_LF, strict=True)
        for old, new, heads_H, neurons_F in pairs:
            units = np.repeat(heads_H, model.config.head_size)
            _cut_layer(cast(SparseBertLayer, old), cast(SparseBertLayer, new), units, neurons_F)
    small.eval()
    return small


@torch.no_grad()
def expand(
    small: SparseBertForSequenceClassification, masks: MaskSet, dense: SparseBertForSequenceClassification
) -> None:
    """Write the weights of `small`, which `compact(dense, masks)` made and which went on learning, back into `dense`.

    `dense` masked is then the function that `small` is; its masked units keep the weights that they had.
    """
    _copy(small.bert.embeddings, dense.bert.embeddings)
    if small.bert.embeddings_project is not None and dense.bert.embeddings_project is not None:
        _copy(small.bert.embeddings_project, dense.bert.embeddings_project)
    _copy(small.bert.pooler, dense.bert.pooler)
    _copy(small.classifier, dense.classifier)
    pairs = zip(small.bert.encoder.layer, dense.bert.encoder.layer, masks.heads_LH, masks.neurons_LF, strict=True)
    for new, old, heads_H, neurons_F in pairs:
        units = np.repeat(heads_H, dense.config.head_size)
        _paste_layer(cast(SparseBertLayer, new), cast(SparseBertLayer, old), units, neurons_F)


def keep_words(
    model: SparseBertForSequenceClassification, kept_K: NDArray[np.int64]
) -> SparseBertForSequenceClassification:
    """A new model whose word table has only the rows `kept_K`, in that order; `model` stays as it is."""
    values = model.config.to_dict() | {"vocab_size": len(kept_K)}
    if values.get("pad_token_id") is not None:
        values["pad_token_id"] = int(np.searchsorted(kept_K, values["pad_token_id"]))
    small = SparseBertForSequenceClassification(SparseBertConfig(**values))
    table = "bert.embeddings.word_embeddings.weight"
    state = model.state_dict()
    small.load_state_dict(state | {table: state[table][torch.from_numpy(kept_K)]})
    small.eval()
    return small


def _cut_layer(old: SparseBertLayer, new: SparseBertLayer, head_units: np.ndarray, neurons_F: np.ndarray) -> None:
    if old.attention is not None and new.attention is not None:
        kept = torch.from_numpy(np.flatnonzero(head_units))
        for name in ("query", "key", "value"):
            _cut_rows(getattr(old.attention.self, name), getattr(new.attention.self, name), kept)
        _cut_columns(old.attention.output.dense, new.attention.output.dense, kept)
        _copy(old.attention.output.LayerNorm, new.attention.output.LayerNorm)
    if old.intermediate is not None and new.intermediate is not None and old.output and new.output:
        kept = torch.from_numpy(np.flatnonzero(neurons_F))
        _cut_rows(old.intermediate.dense, new.intermediate.dense, kept)
        _cut_columns(old.output.dense, new.output.dense, kept)
        _copy(old.output.LayerNorm, new.output.LayerNorm)


def _paste_layer(new: SparseBertLayer, old: SparseBertLayer, head_units: np.ndarray, neurons_F: np.ndarray) -> None:
    if new.attention is not None and old.attention is not None:
        kept = torch.from_numpy(np.flatnonzero(head_units))
        for name in ("query", "key", "value"):
            _paste_rows(getattr(new.attention.self, name), getattr(old.attention.self, name), kept)
        _paste_columns(new.attention.output.dense, old.attention.output.dense, kept)
        _copy(new.attention.output.LayerNorm, old.attention.output.LayerNorm)
    if new.intermediate is not None and old.intermediate is not None and new.output and old.output:
        kept = torch.from_numpy(np.flatnonzero(neurons_F))
        _paste_rows(new.intermediate.dense, old.intermediate.dense, kept)
        _paste_columns(new.output.dense, old.output.dense, kept)
        _copy(new.output.LayerNorm, old.output.LayerNorm)


def _copy(old: nn.Module, new: nn.Module) -> None:
    new.load_state_dict(old.state_dict())


def _cut_rows(old: nn.Linear, new: nn.Linear, kept: Tensor) -> None:
    new.weight.copy_(old.weight[kept])
    new.bias.copy_(old.bias[kept])


def _cut_columns(old: nn.Linear, new: nn.Linear, kept: Tensor) -> None:
    new.weight.copy_(old.weight[:, kept])
    new.bias.copy_(old.bias)


def _paste_rows(new: nn.Linear, old: nn.Linear, kept: Tensor) -> None:
    old.weight[kept] = new.weight.to(old.weight)
    old.bias[kept] = new.bias.to(old.bias)


def _paste_columns(new: nn.Linear, old: nn.Linear, kept: Tensor) -> None:
    old.weight[:, kept] = new.weight.to(old.weight)
    old.bias.copy_(new.bias)
