"""Gradient importance: how much the loss would change to first order if the unit's gate were closed."""

import numpy as np

from training.importance import Signals, Unattached, UnitScores


class GradientImportance(Unattached):
    """|z * ∂loss/∂z| with z = 1, the first-order Taylor term of removing an open unit.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 4.1, equation 2, here for heads
    and FFN neurons, with the batch in place of the single example. For a pruned unit it is the first-order
    gain of opening its gate again, so both kinds of unit are ranked on one scale.
    """

    def score(self, signals: Signals) -> UnitScores:
        """Absolute gradients of the gates."""
        return UnitScores(*(np.abs(gradient) for gradient in signals.gradients))
