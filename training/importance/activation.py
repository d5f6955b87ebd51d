"""Activation importance: how much a unit says, times how much is listened to it."""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from training.importance import Signals, UnitScores
from training.modeling import SparseBertForSequenceClassification
from training.units import layers_of, output_weight_norms_LF, output_weight_norms_LH


class ActivationImportance:
    """mean |activation| over tokens and values of the unit, times the L2 norm of the weights that read it.

    Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda), section 3, for
    whole units; Hu et al. 2016, "Network Trimming", for neurons. What is measured lies before the gates, so pruned
    units are measured too.
    """

    accumulates = False
    adds_up = False

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._heads: dict[int, Tensor] = {}
        self._neurons: dict[int, Tensor] = {}

    def attach(self, model: SparseBertForSequenceClassification) -> None:
        """Watch the contexts of the heads and the activations of the neurons in each forward pass."""
        size = model.config.head_size
        for index, layer in enumerate(layers_of(model)):
            if layer.attention is not None:
                self._watch(layer.attention.self, self._heads, index, size)
            if layer.intermediate is not None:
                self._watch(layer.intermediate, self._neurons, index, 1)

    def _watch(self, module: nn.Module, means: dict[int, Tensor], index: int, size: int) -> None:
        def keep_mean(_: nn.Module, __: object, output: Tensor) -> None:
            if module.training:
                means[index] = output.detach().abs().mean(dim=(0, 1), dtype=torch.float32).view(-1, size).mean(dim=1)

        self._handles.append(module.register_forward_hook(keep_mean))

    @torch.no_grad()
    def score(self, signals: Signals) -> UnitScores:
        """Of the last forward pass in training."""
        heads_LH = _stack(self._heads) * output_weight_norms_LH(signals.model)
        neurons_LF = _stack(self._neurons) * output_weight_norms_LF(signals.model)
        return UnitScores(heads_LH.double().cpu().numpy(), neurons_LF.double().cpu().numpy())

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _stack(means: dict[int, Tensor]) -> Tensor:
    return torch.stack([means[index] for index in sorted(means)])
