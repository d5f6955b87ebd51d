"""Gradient importance: how much the loss would change to first order if the unit's gate were closed."""

from training.importance import Signals, Unattached, UnitScores


class GradientImportance(Unattached):
    """The mean over texts of |z * ∂loss/∂z|, the first-order Taylor term of removing an open unit of gate z.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", section 4.1, equation 2, here for heads
    and FFN neurons. For a pruned unit it is the first-order gain of opening its gate again.
    """

    def score(self, signals: Signals) -> UnitScores:
        """Mean absolute gradients of the gates."""
        return signals.absolute_gradient
