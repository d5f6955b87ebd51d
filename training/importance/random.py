"""Random importance: the control that every criterion must beat."""

import numpy as np

from training.importance import Signals, Unattached, UnitScores


class RandomImportance(Unattached):
    """One draw from [0, 1) for each unit, the same in every step: a fixed random order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def score(self, signals: Signals) -> UnitScores:
        """The same draw each time."""
        rng = np.random.default_rng(self._seed)
        return UnitScores(*(rng.random(gradient.shape) for gradient in signals.gradient))
