"""The matrices of an encoder, some of whose weights are held at 0 by torch.nn.utils.prune.

Knows nothing about when weights leave or about training. W weights, of one matrix or of all one after the other.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from training.modeling import SparseBertForSequenceClassification

WEIGHT = "weight"


class LowestScores(prune.BasePruningMethod):
    """Prunes the weights with the lowest scores; `prune.L1Unstructured` with their signs."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: int) -> None:
        self._amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` [W] without the `amount` lowest of the scores `t` [W]."""
        mask = default_mask.clone()
        if self._amount:
            mask[torch.topk(t, self._amount, largest=False, sorted=False).indices] = 0
        return mask


class EncoderWeights:
    """All weights of the attention and feed-forward projections, without biases and LayerNorms.

    From the first to `settle` the model's own matrices are products of a parameter and a mask.
    """

    def __init__(self, model: SparseBertForSequenceClassification) -> None:
        self.linears = [module for module in model.bert.encoder.modules() if isinstance(module, nn.Linear)]
        for linear in self.linears:
            prune.identity(linear, WEIGHT)  # type: ignore[no-untyped-call]

    @property
    def num_weights(self) -> int:
        """How many there are, zeros included."""
        return sum(weight.numel() for weight in self.originals())

    @property
    def sparsity(self) -> float:
        """The share of them that is held at 0."""
        kept = sum(int(mask.sum()) for mask in self._masks())
        return 1.0 - kept / self.num_weights

    @torch.no_grad()
    def magnitudes(self) -> list[Tensor]:
        """Absolute values, one tensor for each of `linears`; those of pruned weights are 0."""
        return [(weight * mask).abs() for weight, mask in zip(self.originals(), self._masks(), strict=True)]

    @torch.no_grad()
    def keep_highest_of_all(self, scores: Sequence[Tensor], share: float) -> None:
        """Hold the `share` of the weights with the lowest scores at 0, over all matrices together, and no others."""
        mask_W = _mask_W(torch.cat([score.flatten() for score in scores]), share)
        parts = torch.split(mask_W, [mask.numel() for mask in self._masks()])
        for mask, part in zip(self._masks(), parts, strict=True):
            mask.copy_(part.view_as(mask))

    @torch.no_grad()
    def keep_highest_of_each(self, scores: Sequence[Tensor], share: float) -> None:
        """The same within each matrix."""
        for mask, score in zip(self._masks(), scores, strict=True):
            mask.copy_(_mask_W(score.flatten(), share).view_as(mask))

    def settle(self) -> None:
        """Write the zeros into the matrices; they are plain parameters again."""
        for linear in self.linears:
            prune.remove(linear, WEIGHT)  # type: ignore[no-untyped-call]

    def originals(self) -> list[Tensor]:
        """The parameters behind the masks, one for each of `linears`."""
        return [cast(Tensor, linear.weight_orig) for linear in self.linears]

    def _masks(self) -> list[Tensor]:
        return [cast(Tensor, linear.weight_mask) for linear in self.linears]


def _mask_W(scores_W: Tensor, share: float) -> Tensor:
    return LowestScores(round(share * scores_W.numel())).compute_mask(scores_W, torch.ones_like(scores_W))
