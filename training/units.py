"""Which weights belong to a head or a neuron, and how large they are.

Knows nothing about scores or masks. L layers, H heads, E head size, F neurons, D hidden size.
"""

from typing import TypeVar, cast

import torch
from torch import Tensor

from training.modeling import SparseBertForSequenceClassification, SparseBertLayer

T = TypeVar("T")


def layers_of(model: SparseBertForSequenceClassification) -> list[SparseBertLayer]:
    """The encoder's layers, first to last."""
    return [cast(SparseBertLayer, layer) for layer in model.bert.encoder.layer]


def head_weight_norms_LH(model: SparseBertForSequenceClassification) -> Tensor:
    """The L2 norm of each head's query, key, value and output weights; differentiable."""
    size = model.config.head_size
    rows = []
    for layer in layers_of(model):
        attention = _there(layer.attention)
        parts = (attention.self.query, attention.self.key, attention.self.value)
        squares = [_squares_of_rows(part.weight, size) for part in parts]
        squares.append(_squares_of_rows(attention.output.dense.weight.T, size))
        rows.append(torch.stack(squares).sum(dim=0).sqrt())
    return torch.stack(rows)


def neuron_weight_norms_LF(model: SparseBertForSequenceClassification) -> Tensor:
    """The L2 norm of each neuron's incoming and outgoing weights; differentiable."""
    rows = []
    for layer in layers_of(model):
        made = _squares_of_rows(_there(layer.intermediate).dense.weight, 1)
        rows.append((made + _squares_of_rows(_there(layer.output).dense.weight.T, 1)).sqrt())
    return torch.stack(rows)


def output_weight_norms_LH(model: SparseBertForSequenceClassification) -> Tensor:
    """The L2 norm of the output weights that read each head."""
    size = model.config.head_size
    return torch.stack(
        [_squares_of_rows(_there(layer.attention).output.dense.weight.T, size).sqrt() for layer in layers_of(model)]
    )


def output_weight_norms_LF(model: SparseBertForSequenceClassification) -> Tensor:
    """The L2 norm of the output weights that read each neuron."""
    return torch.stack([_squares_of_rows(_there(layer.output).dense.weight.T, 1).sqrt() for layer in layers_of(model)])


@torch.no_grad()
def scale_units(model: SparseBertForSequenceClassification, heads_LH: Tensor, neurons_LF: Tensor) -> None:
    """Multiply what reads each unit by its factor: the same function as gates of these values."""
    for layer, heads_H, neurons_F in zip(layers_of(model), heads_LH, neurons_LF, strict=True):
        _there(layer.attention).output.dense.weight.mul_(heads_H.repeat_interleave(model.config.head_size))
        _there(layer.output).dense.weight.mul_(neurons_F)


def _squares_of_rows(weight: Tensor, size: int) -> Tensor:
    """Squared norms of groups of `size` rows."""
    return weight.float().square().sum(dim=1).view(-1, size).sum(dim=1)


def _there(block: T | None) -> T:
    if block is None:
        raise ValueError("a block was removed; units are scored on the model with all its blocks")
    return block
