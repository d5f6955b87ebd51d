"""How much a unit matters: one protocol, one file for each criterion.

Knows nothing about budgets or masks. L layers, H heads, F neurons.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from training.modeling import SparseBertForSequenceClassification

FloatArray = NDArray[np.float64]
TINY = 1e-300
ORDER = 1e-6  # of the mean worth: what tells units of no worth apart


class UnitScores(NamedTuple):
    """A number for each unit, larger is better: `heads_LH` [L, H] and `neurons_LF` [L, F]."""

    heads_LH: FloatArray
    neurons_LF: FloatArray


@dataclass(frozen=True, eq=False)
class Signals:
    """What one step left, for each unit: ∂loss/∂z of each text, and how open its gate has become by itself.

    The mean of ∂loss/∂z over texts; with g, which the mask is multiplied by (1 unless gates are learned), the means of
    |g ∂loss/∂z| and of its square.
    """

    model: SparseBertForSequenceClassification
    gradient: UnitScores
    absolute_gradient: UnitScores
    squared_gradient: UnitScores
    openness: UnitScores


class Importance(Protocol):
    """A criterion. Scores are finite, and given for pruned units too.

    `accumulates`: the scores of all steps are summed (they are learned), not averaged. `adds_up`: the score of a set
    of units is the sum of theirs, so that a head can be held against the neurons that cost as much; if not, see
    `balanced`.
    """

    accumulates: bool
    adds_up: bool

    def attach(self, model: SparseBertForSequenceClassification) -> None:
        """Begin to watch `model`; called once before the first step."""

    def score(self, signals: Signals) -> UnitScores:
        """The scores that this step alone gives."""

    def detach(self) -> None:
        """Stop watching; called once when the structure is final."""


class Unattached:
    """What most criteria do with `attach` and `detach`: nothing."""

    accumulates = False
    adds_up = False

    def attach(self, model: SparseBertForSequenceClassification) -> None:
        """Nothing to watch."""

    def detach(self) -> None:
        """Nothing was watched."""


def balanced(scores: UnitScores, head_cost: float, neuron_cost: float) -> UnitScores:
    """Scores whose mean size for what a unit costs is the same for heads and for neurons.

    For criteria that do not add up: the norm of 64 neurons together is less than the sum of their norms, so that
    undivided sums would starve the heads. A score below 0 says that the unit is better closed: it is worth nothing, and
    keeps its place in the order.
    """
    return UnitScores(_worth(scores.heads_LH, head_cost), _worth(scores.neurons_LF, neuron_cost))


def _worth(scores_LU: FloatArray, cost: float) -> FloatArray:
    worth_LU: FloatArray = np.maximum(scores_LU, 0.0)
    order_LU = (scores_LU - scores_LU.min()) / max(float(np.ptp(scores_LU)), TINY)
    per_cost_LU: FloatArray = worth_LU / max(float(worth_LU.mean()), TINY) + ORDER * order_LU
    return cost * per_cost_LU


class RunningScores:
    """Scores over steps: an exponential average, unbiased from the start, or a plain sum (decay None).

    new = decay * old + (1 - decay) * step; the correction for the start is Adam's (Kingma and Ba 2015, section 3).
    """

    def __init__(self, decay: float | None) -> None:
        self._decay = decay
        self._sum: UnitScores | None = None
        self._weight = 0.0

    def observe(self, scores: UnitScores) -> None:
        """Take one step's scores in."""
        old = self._sum or UnitScores(np.zeros_like(scores.heads_LH), np.zeros_like(scores.neurons_LF))
        keep, take = (1.0, 1.0) if self._decay is None else (self._decay, 1.0 - self._decay)
        self._sum = UnitScores(*(keep * a + take * b for a, b in zip(old, scores, strict=True)))
        self._weight = 1.0 if self._decay is None else keep * self._weight + take

    @property
    def current(self) -> UnitScores | None:
        """The average or sum, None before the first step."""
        if self._sum is None:
            return None
        return UnitScores(self._sum.heads_LH / self._weight, self._sum.neurons_LF / self._weight)

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"sum": self._sum, "weight": self._weight}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._sum, self._weight = state["sum"], state["weight"]
