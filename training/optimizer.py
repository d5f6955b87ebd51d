"""AdamW over a model's weights and what else is learned: which of them decay, and their peak rates; or over nothing.

Knows nothing about schedules or steps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.modeling import SparseBertForSequenceClassification


def new_optimizer(
    model: SparseBertForSequenceClassification,
    learning_rate: float,
    weight_decay: float,
    train_embeddings: bool,
    others: Sequence[dict[str, Any]] = (),
    *,
    frozen_layers: int = 0,
) -> torch.optim.AdamW:
    """Every group has a `peak_lr`, which a schedule multiplies unless the group is "constant".

    Biases and LayerNorms do not decay. `others` are groups besides the model's. Without `train_embeddings` the
    embeddings get no gradients at all; nor do they and all below the layer `frozen_layers`, which costs no backward
    pass then.
    """
    model.bert.embeddings.requires_grad_(train_embeddings and not frozen_layers)
    if frozen_layers:
        model.bert.encoder.layer[:frozen_layers].requires_grad_(False)
        if model.bert.embeddings_project is not None:
            model.bert.embeddings_project.requires_grad_(False)
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    peak = {"lr": learning_rate, "peak_lr": learning_rate}
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay, **peak},
        {"params": plain, "weight_decay": 0.0, **peak},
        *others,
    ]
    return torch.optim.AdamW(groups, fused=True)


class NoOptimizer:
    """For a stage whose objective does not teach: the weights get no gradients, which makes a step cheaper."""

    def __init__(self, model: SparseBertForSequenceClassification) -> None:
        model.requires_grad_(False)
        self.param_groups: list[dict[str, Any]] = []

    def step(self) -> None:
        """Nothing moves."""

    def zero_grad(self) -> None:
        """Nothing has gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""
