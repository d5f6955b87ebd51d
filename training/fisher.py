"""How strongly does the loss of a trained model hang on each unit: the diagonal Fisher information of its gates.

Kwon et al. 2022, "A Fast Post-Training Pruning Framework for Transformers", the Fisher-based mask search: near a
minimum, closing gates raises the loss by about half the sum of their entries.
Knows nothing about budgets or masks.

Letters: L layers, B texts, H heads, F neurons.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from sparsebert.masks import MaskSet
from training.batching import Batch, EncodedExample, collate, plan_evaluation
from training.geometry import geometry_of
from training.importance import UnitScores
from training.masking import Gates
from training.modeling import SparseBertForSequenceClassification


def gate_fisher(
    model: SparseBertForSequenceClassification,
    examples: Sequence[EncodedExample],
    pad_id: int,
    *,
    batch_size: int = 32,
    on_batch: Callable[[int], object] = lambda _size: None,
) -> UnitScores:
    """The sum over the examples of (∂loss/∂gate)², of a dense model in evaluation mode.

    Each text has gates of its own, so that one backward pass gives the gradient of each example by itself, and the
    result does not depend on the size of batches. `on_batch` is called with the size of each finished batch.
    """
    geometry = geometry_of(model)
    device = next(model.parameters()).device
    gates = Gates(MaskSet.dense(geometry.num_layers, geometry.heads_L[0], geometry.neurons_L[0])).to(device)
    total = UnitScores(np.zeros(gates.masks.heads_LH.shape), np.zeros(gates.masks.neurons_LF.shape))
    for indices_B in plan_evaluation([len(example.token_ids) for example in examples], batch_size):
        squares = _mean_squares(model, gates, collate(examples, indices_B, pad_id).to(device))
        total = UnitScores(*(sums + len(indices_B) * part for sums, part in zip(total, squares, strict=True)))
        on_batch(len(indices_B))
    return total


def _mean_squares(model: SparseBertForSequenceClassification, gates: Gates, batch: Batch) -> UnitScores:
    """The mean over the texts of a batch; the model's own weights get no gradients."""
    requires_grad = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
            gates=gates(num_texts=len(batch.labels_B)),
        )
        torch.autograd.backward(functional.cross_entropy(output.logits, batch.labels_B))
    finally:
        for parameter, value in zip(model.parameters(), requires_grad, strict=True):
            parameter.requires_grad_(value)
    return gates.backward().squares
