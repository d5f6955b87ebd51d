"""Which single weights are worth keeping, learned while the model learns.

Knows nothing about masks or when weights leave.
"""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.unstructured.methods import SCORE_LEARNING_RATE
from training.unstructured.weights import EncoderWeights


class Movement:
    """A score for each weight, learned by gradient descent through its straight-through mask.

    The gradient of a score is weight * gradient of the masked weight, also where that is 0 now (Sanh et al. 2020,
    "Movement Pruning", section 4). As in their code scores start at 0 and are learned by Adam, which makes them alike
    in all layers, whatever the size of the layers' gradients. Unlike there, gradients of scores are not clipped.
    """

    def __init__(self, weights: EncoderWeights) -> None:
        self.scores = [nn.Parameter(torch.zeros_like(weight)) for weight in weights.originals()]
        self._hooks = [
            linear.register_forward_hook(partial(_listen, weight, score))
            for linear, weight, score in zip(weights.linears, weights.originals(), self.scores, strict=True)
        ]

    def parameter_group(self) -> dict[str, Any]:
        """Scores do not decay; their rate follows the schedule of the weights'."""
        rates = {"lr": SCORE_LEARNING_RATE, "peak_lr": SCORE_LEARNING_RATE}
        return {"params": self.scores, "weight_decay": 0.0, **rates}

    def to(self, device: torch.device) -> None:
        """Move scores, in place."""
        for score in self.scores:
            score.data = score.to(device)

    def state(self) -> list[Tensor]:
        """The scores, for `restore`."""
        return [score.detach() for score in self.scores]

    @torch.no_grad()
    def restore(self, scores: list[Tensor]) -> None:
        """Go back to saved scores."""
        for own, saved in zip(self.scores, scores, strict=True):
            own.copy_(saved)

    def detach(self) -> None:
        """Listen no more."""
        for hook in self._hooks:
            hook.remove()


def _listen(weight: Tensor, score: nn.Parameter, module: nn.Module, *_: Any) -> None:
    """Give `score` its gradient in the coming backward pass."""

    def add(gradient: Tensor) -> None:  # returns nothing: what a hook returns takes the gradient's place
        product = weight.detach() * gradient
        score.grad = product if score.grad is None else score.grad.add_(product)

    masked = cast(Tensor, module.weight)
    if masked.requires_grad:
        masked.register_hook(add)  # type: ignore[no-untyped-call]
