"""How much a unit matters: one protocol, one file for each criterion.

Knows nothing about budgets or masks. L layers, H heads, F neurons.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from training.masking import Gates

FloatArray = NDArray[np.float64]


class UnitScores(NamedTuple):
    """Importance of each unit, larger is better: `heads_LH` [L, H] and `neurons_LF` [L, F]."""

    heads_LH: FloatArray
    neurons_LF: FloatArray


class Importance(Protocol):
    """A criterion: called after the backward pass of a step, it returns that step's scores.

    Scores are finite, not negative, and given for pruned units too.
    """

    def score(self, gates: Gates) -> UnitScores:
        """Scores of all units from what this step left on the gates."""


class RunningScores:
    """Exponential running average of scores: new = decay * old + (1 - decay) * step, unbiased from the start.

    The correction for the start is Adam's (Kingma and Ba 2015, section 3).
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._sum: UnitScores | None = None
        self._weight = 0.0

    def observe(self, scores: UnitScores) -> None:
        """Take one step's scores in."""
        old = self._sum or UnitScores(np.zeros_like(scores.heads_LH), np.zeros_like(scores.neurons_LF))
        mixed = (self._decay * a + (1.0 - self._decay) * b for a, b in zip(old, scores, strict=True))
        self._sum = UnitScores(*mixed)
        self._weight = self._decay * self._weight + 1.0 - self._decay

    @property
    def average(self) -> UnitScores | None:
        """The average, None before the first step."""
        if self._sum is None:
            return None
        return UnitScores(self._sum.heads_LH / self._weight, self._sum.neurons_LF / self._weight)

    def state(self) -> tuple[UnitScores | None, float]:
        """What `restore` needs."""
        return self._sum, self._weight

    def restore(self, total: UnitScores | None, weight: float) -> None:
        """Go back to a saved state."""
        self._sum, self._weight = total, weight
