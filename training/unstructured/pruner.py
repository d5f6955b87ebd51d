"""When single weights leave while the model learns: a sparsifier for `training.loop`.

Knows nothing about data or checkpoints.
"""

from typing import Any

import torch

from training.modeling import SparseBertForSequenceClassification
from training.unstructured.methods import Method
from training.unstructured.movement import Movement
from training.unstructured.weights import EncoderWeights


class WeightPruner:
    """Holds weights of `model` at 0 as `method` says, until `final` of them are; `settle` ends it.

    Movement scores are learned for weights that are 0 now, too, which may therefore return until `final` is reached
    (Sanh et al. 2020 let them return to the end). Masks follow them at every step, as there: weights that all had to
    shrink leave together, and what that does to the others must be felt before more follow (docs/results.md).
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
        """Scores of movement, if it is that; else nothing is learned besides the weights."""
        return [] if self._movement is None else [self._movement.parameter_group()]

    def unit_gates(self, num_texts: int | None = None) -> None:
        """All heads and neurons stay."""

    def alive_L(self) -> list[bool]:
        """All layers compute."""
        return [True] * self._num_layers

    def after_backward(
        self,
        step: int,
        num_steps: int,
        loss_scale: float = 1.0,  # noqa: ARG002 (protocol)
        num_texts: int | None = None,  # noqa: ARG002 (protocol)
    ) -> None:
        """Let weights leave or return when the method says so."""
        share = self._method.share(step + 1, num_steps, self._final)
        if share > self._share:
            self._cut_to(share)

    def cuts(self, num_steps: int) -> list[int]:
        """After which of `num_steps` steps from now weights will leave."""
        found, reached = [], self._share
        for step in range(1, num_steps + 1):
            share = self._method.share(step, num_steps, self._final)
            if share > reached:
                found.append(step)
                reached = share
        return found

    def settle(self) -> None:
        """Zeros are final, those that the last steps were trained with: they are written into the matrices."""
        if self._movement is not None:
            self._movement.detach()
        self.weights.settle()

    def state(self) -> dict[str, Any]:
        """What `restore` needs besides the model's masks."""
        return {"share": self._share, "movement": None if self._movement is None else self._movement.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._share = state["share"]
        if self._movement is not None:
            self._movement.restore(state["movement"])

    def _cut_to(self, share: float) -> None:
        if share:
            if self._movement is None:
                self.weights.keep_highest_of_all(self.weights.magnitudes(), share)
            else:
                self.weights.keep_highest_of_each(self._movement.scores, share)
            self._share = share
