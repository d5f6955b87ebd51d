"""Gate importance: what a regulariser of gates has made of them."""

from training.importance import Signals, Unattached, UnitScores


class GateImportance(Unattached):
    """How open a unit's learned gate is: |g| under L1, the probability that it is not 0 under L0.

    Liu et al. 2017, "Network Slimming", section 3, for L1; Louizos et al. 2018, "Learning Sparse Neural Networks
    through L0 Regularization", equation 12, for L0. So the regulariser alone decides what leaves.
    """

    def score(self, signals: Signals) -> UnitScores:
        """The gates' own values, before masks."""
        return signals.openness
