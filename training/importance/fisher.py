"""Fisher importance: the expected squared gradient of the unit's gate, a second-order measure of removing it."""

from training.importance import Signals, Unattached, UnitScores


class FisherImportance(Unattached):
    """The mean over texts of (z * ∂loss/∂z)², z that of the open unit, the diagonal of the empirical Fisher matrix.

    Kwon et al. 2022, "A Fast Post-Training Pruning Framework for Transformers", section 3.2; Molchanov et al. 2019,
    "Importance Estimation for Neural Network Pruning", equation 8. Half of its sum over the
    removed units is by how much the loss rises.
    """

    adds_up = True

    def score(self, signals: Signals) -> UnitScores:
        """Mean squared gradients of the gates."""
        return signals.squared_gradient
