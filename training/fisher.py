"""How strongly does the loss of a trained model hang on each unit: the diagonal Fisher information of its gates.

Kwon et al. 2022, "A Fast Post-Training Pruning Framework for Transformers", the Fisher-based mask search: near a
minimum, closing gates raises the loss by about half the sum of their entries.
Knows nothing about budgets or masks.

Letters: L layers, B texts, H heads, F neurons.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.batching import Batch, EncodedExample, collate, plan_evaluation
from training.geometry import geometry_of
from training.importance import UnitScores
from training.modeling import SparseBertForSequenceClassification, UnitGates


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
    heads_LH = np.zeros((geometry.num_layers, geometry.heads_L[0]))
    neurons_LF = np.zeros((geometry.num_layers, geometry.neurons_L[0]))
    for indices_B in plan_evaluation([len(example.token_ids) for example in examples], batch_size):
        heads_LB1H, neurons_LB1F = _gradients(
            model, collate(examples, indices_B, pad_id).to(device), heads_LH.shape[1], neurons_LF.shape[1]
        )
        heads_LH += _sum_of_squares(heads_LB1H)
        neurons_LF += _sum_of_squares(neurons_LB1F)
        on_batch(len(indices_B))
    return UnitScores(heads_LH, neurons_LF)


def _gradients(
    model: SparseBertForSequenceClassification, batch: Batch, num_heads: int, num_neurons: int
) -> tuple[Tensor, ...]:
    """∂loss/∂gate of each text's own gates, [L, B, 1, H] and [L, B, 1, F]."""
    num_layers, num_texts = model.config.num_hidden_layers, len(batch.labels_B)
    device = batch.labels_B.device
    heads_LB1H = torch.ones(num_layers, num_texts, 1, num_heads, device=device, requires_grad=True)
    neurons_LB1F = torch.ones(num_layers, num_texts, 1, num_neurons, device=device, requires_grad=True)
    all_exist_L = (True,) * num_layers
    logits_BC = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        gates=UnitGates(heads_LB1H, neurons_LB1F, all_exist_L, all_exist_L),
    ).logits
    loss = functional.cross_entropy(logits_BC, batch.labels_B, reduction="sum")
    return torch.autograd.grad(loss, (heads_LB1H, neurons_LB1F))


def _sum_of_squares(gradient_LB1U: Tensor) -> np.ndarray:
    return gradient_LB1U.double().square().sum(dim=(1, 2)).cpu().numpy()
