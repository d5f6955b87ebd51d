"""Fisher importance: the expected squared gradient of the unit's gate, a second-order measure of removing it."""

import numpy as np

from training.importance import Signals, Unattached, UnitScores


class FisherImportance(Unattached):
    """(z * ∂loss/∂z)² with z = 1, whose mean over steps is the diagonal of the empirical Fisher matrix.

    Kwon et al. 2022, "A Fast Post-Training Pruning Framework for Transformers", section 3.2; Molchanov et al. 2019,
    "Importance Estimation for Neural Network Pruning", equation 8. The gradient is that of a batch,
    not of an example, so that a step costs nothing more.
    """

    def score(self, signals: Signals) -> UnitScores:
        """Squared gradients of the gates."""
        return UnitScores(*(np.square(gradient) for gradient in signals.gradients))
