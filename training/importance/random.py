"""Random importance: the control that every criterion must beat."""

import numpy as np

from training.importance import Signals, Unattached, UnitScores


class RandomImportance(Unattached):
    """One draw from [0, 1) for each unit, times its number of weights, the same in every step: a fixed random order.

    The factor makes heads and neurons equally likely to leave for what they cost.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def score(self, signals: Signals) -> UnitScores:
        """The same draw each time."""
        rng = np.random.default_rng(self._seed)
        heads_LH, neurons_LF = (rng.random(gradient.shape) for gradient in signals.gradients)
        weights_per_head = 2 * signals.model.config.head_size  # a neuron has 2 * D weights, a head 4 * E * D
        return UnitScores(heads_LH * weights_per_head, neurons_LF)
