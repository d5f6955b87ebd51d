"""Activation importance: how much a unit says, times how much is listened to it."""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from training.importance import Signals, UnitScores
from training.modeling import SparseBertForSequenceClassification
from training.units import layers_of, output_weight_norms_LF, output_weight_norms_LH


class ActivationImportance:
    """mean |activation| over tokens and values of the unit, times |g| and the L2 norm of the weights that read it.

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
        self._tokens_BT: Tensor | None = None
        self._num_tokens = 0.0

    def attach(self, model: SparseBertForSequenceClassification) -> None:
        """Watch the contexts of the heads and the activations of the neurons in each forward pass."""
        size = model.config.head_size
        self._handles.append(model.register_forward_pre_hook(self._keep_tokens, with_kwargs=True))
        for index, layer in enumerate(layers_of(model)):
            if layer.attention is not None:
                self._watch(layer.attention.self, self._heads, index, size)
            if layer.intermediate is not None:
                self._watch(layer.intermediate, self._neurons, index, 1)

    def _keep_tokens(self, model: nn.Module, _: object, inputs: dict[str, Tensor]) -> None:
        """Which tokens are no padding."""
        if model.training:
            self._tokens_BT = inputs["attention_mask"]
            self._num_tokens += float(self._tokens_BT.sum())

    def _watch(self, module: nn.Module, sums: dict[int, Tensor], index: int, size: int) -> None:
        def add(_: nn.Module, __: object, output: Tensor) -> None:
            if module.training and self._tokens_BT is not None:
                own_D = torch.einsum("btd,bt->d", output.detach().abs().float(), self._tokens_BT.float())
                own_U = own_D.view(-1, size).mean(dim=1)
                sums[index] = own_U if index not in sums else sums[index] + own_U

        self._handles.append(module.register_forward_hook(add))

    @torch.no_grad()
    def score(self, signals: Signals) -> UnitScores:
        """Of all forward passes in training since the last score."""
        weights_LH, weights_LF = output_weight_norms_LH(signals.model), output_weight_norms_LF(signals.model)
        heads_LH = _stack(self._heads, weights_LH) / self._num_tokens * weights_LH
        neurons_LF = _stack(self._neurons, weights_LF) / self._num_tokens * weights_LF
        self._heads.clear()
        self._neurons.clear()
        self._num_tokens = 0.0
        return UnitScores(
            heads_LH.double().cpu().numpy() * signals.openness.heads_LH,
            neurons_LF.double().cpu().numpy() * signals.openness.neurons_LF,
        )

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _stack(sums: dict[int, Tensor], like_LU: Tensor) -> Tensor:
    """[L, U]; a block that an earlier target emptied is not computed, and says nothing."""
    sums_LU = torch.zeros_like(like_LU)
    for index, own_U in sums.items():
        sums_LU[index] = own_U
    return sums_LU
