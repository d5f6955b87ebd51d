"""Gradient importance: how much the loss would change to first order if the unit's gate were closed."""

import numpy as np
from torch import Tensor

from training.importance import FloatArray, UnitScores
from training.masking import Gates


class GradientImportance:
    """|∂loss/∂z|, the first-order Taylor term of removing a unit whose gate is 1.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 4.1, equation 2, here for heads
    and FFN neurons, with the batch in place of the single example. For a pruned unit it is the first-order
    gain of opening its gate again, so both kinds of unit are ranked on one scale.
    """

    def score(self, gates: Gates) -> UnitScores:
        """Absolute gradients of the gates; the gradients are then cleared."""
        scores = UnitScores(_absolute_gradient(gates.heads_LH), _absolute_gradient(gates.neurons_LF))
        gates.zero_grad(set_to_none=True)
        return scores


def _absolute_gradient(gate: Tensor) -> FloatArray:
    if gate.grad is None:
        return np.zeros(gate.shape)
    return gate.grad.detach().abs().double().cpu().numpy()
