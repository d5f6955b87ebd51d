"""Movement importance: scores that are learned, growing where the loss wants a unit open."""

from training.importance import Signals, Unattached, UnitScores


class MovementImportance(Unattached):
    """The sum over steps of -∂loss/∂z: gradient descent on a unit's score through its straight-through mask.

    Sanh et al. 2020, "Movement Pruning", section 3, with whole units in place of single weights as in
    Lagunas et al. 2021, "Block Pruning For Faster Transformers", section 3. The step size is left out: it scales all
    scores alike. A unit's gradient sums W * ∂loss/∂W over the weights that read it, so scores grow where weights move
    away from zero.
    """

    accumulates = True

    def score(self, signals: Signals) -> UnitScores:
        """Negative gradients of the gates, to be summed."""
        return UnitScores(*(-gradient for gradient in signals.gradient))
