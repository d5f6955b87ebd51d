"""When single weights leave while the model learns: a sparsifier for `training.loop`.

Knows nothing about data or checkpoints. W weights.
"""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.modeling import SparseBertForSequenceClassification
from training.unstructured.methods import Method
from training.unstructured.weights import EncoderWeights

UPDATE_EVERY_STEPS = 20  # of movement scores: sorting all weights takes as long as a step


class WeightPruner:
    """Holds weights of `model` at 0 as `method` says, until `final` of them are; `settle` ends it.

    Movement scores are sums of -weight * gradient of the masked weight, also for weights that are 0 now, which may
    therefore return until `final` is reached (Sanh et al. 2020, section 4; they let weights return to the end).
    """

    may_skip_blocks = False
    told = "of the encoder's weights are 0"

    def __init__(self, model: SparseBertForSequenceClassification, method: Method, final: float) -> None:
        self.weights = EncoderWeights(model)
        self._method = method
        self._final = final
        self._num_layers = len(model.bert.encoder.layer)
        self._share = 0.0
        self._movement = None if method.criterion == "magnitude" else Movement(self.weights)
        self._cut_to(method.share(0, 1, final))

    @property
    def encoder_sparsity(self) -> float:
        """The share of the encoder's weights that is 0; nothing of it can be cut out."""
        return self._share

    def to(self, device: torch.device) -> None:
        """The masks are the model's own; only scores move."""
        if self._movement is not None:
            self._movement.to(device)

    def parameter_groups(self, num_steps: int) -> list[dict[str, Any]]:  # noqa: ARG002 (protocol)
        """Nothing is learned besides the weights."""
        return []

    def unit_gates(self, num_texts: int | None = None) -> None:
        """All heads and neurons stay."""

    def alive_L(self) -> list[bool]:
        """All layers compute."""
        return [True] * self._num_layers

    def after_backward(
        self,
        step: int,
        num_steps: int,
        loss_scale: float = 1.0,
        num_texts: int | None = None,  # noqa: ARG002 (protocol)
    ) -> None:
        """Score, and let weights leave or return when the method says so."""
        if self._movement is not None:
            self._movement.observe(loss_scale)
        share = self._method.share(step + 1, num_steps, self._final)
        if share > self._share and self._is_due(step + 1, share):
            self._cut_to(share)

    def cuts(self, num_steps: int) -> list[int]:
        """After which of `num_steps` steps from now weights will leave."""
        found, reached = [], self._share
        for step in range(1, num_steps + 1):
            share = self._method.share(step, num_steps, self._final)
            if share > reached and self._is_due(step, share):
                found.append(step)
                reached = share
        return found

    def _is_due(self, step: int, share: float) -> bool:
        """By movement every few steps only, and when the ramp has reached its end."""
        return self._movement is None or step % UPDATE_EVERY_STEPS == 0 or share >= self._final

    def settle(self) -> None:
        """Zeros are final, those that the last steps were trained with: they are written into the matrices."""
        if self._share < self._final:  # a last update was not due
            self._cut_to(self._final)
        if self._movement is not None:
            self._movement.detach()
        self.weights.settle()

    def state(self) -> dict[str, Any]:
        """What `restore` needs besides the model's masks."""
        return {"share": self._share, "movement": None if self._movement is None else self._movement.scores}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._share = state["share"]
        if self._movement is not None:
            self._movement.restore(state["movement"])

    def _cut_to(self, share: float) -> None:
        if share:
            scores_W = self.weights.magnitudes_W() if self._movement is None else self._movement.scores_W()
            self.weights.keep_highest(scores_W, share)
            self._share = share


class Movement:
    """Sums of -weight * gradient since the beginning, one for each weight."""

    def __init__(self, weights: EncoderWeights) -> None:
        self._weights = weights
        self._gradients = [torch.zeros_like(weight) for weight in weights.originals()]
        self.scores = [torch.zeros_like(weight) for weight in weights.originals()]
        self._hooks = [
            linear.register_forward_hook(partial(_listen, gradient))
            for linear, gradient in zip(weights.linears, self._gradients, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Move gradients and scores, in place."""
        for tensor in (*self._gradients, *self.scores):
            tensor.data = tensor.to(device)

    @torch.no_grad()
    def observe(self, loss_scale: float) -> None:
        """Take one step's gradients in, unless fp16 overflowed: then the optimiser skips the step, too."""
        finite = all(bool(gradient.isfinite().all()) for gradient in self._gradients)
        for weight, gradient, score in zip(self._weights.originals(), self._gradients, self.scores, strict=True):
            if finite:
                score.addcmul_(weight, gradient, value=-1.0 / loss_scale)
            gradient.zero_()

    def scores_W(self) -> Tensor:
        """All scores, in the order of the matrices."""
        return torch.cat([score.flatten() for score in self.scores])

    def restore(self, scores: list[Tensor]) -> None:
        """Go back to saved scores."""
        for own, saved in zip(self.scores, scores, strict=True):
            own.copy_(saved)

    def detach(self) -> None:
        """Listen no more."""
        for hook in self._hooks:
            hook.remove()


def _listen(sums: Tensor, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001 (a hook's form)
    """Add the gradient of the masked weight to `sums` in the coming backward pass."""

    def add(gradient: Tensor) -> None:  # returns nothing: what a hook returns takes the gradient's place
        sums.add_(gradient)

    weight = cast(Tensor, module.weight)
    if weight.requires_grad:
        weight.register_hook(add)  # type: ignore[no-untyped-call]
