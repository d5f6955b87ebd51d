"""Which units to keep, given scores and a budget of encoder parameters.

Pure: knows nothing about models, gradients or time. L layers, H heads, F neurons, U = L*H + L*F units.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsebert.errors import BudgetError, ConfigError
from sparsebert.geometry import Geometry, head_parameters, neuron_parameters
from sparsebert.masks import BoolArray, MaskSet
from training.importance import FloatArray, UnitScores


@dataclass(frozen=True, kw_only=True)
class KeepFloor:
    """The fewest units that every layer keeps, whatever their scores."""

    heads: int = 1
    neurons: int = 16

    def __post_init__(self) -> None:
        if self.heads < 1 or self.neurons < 1:
            raise ConfigError(f"a layer must keep at least 1 head and 1 neuron, not {self.heads} and {self.neurons}")


def check_sparsity(dense: Geometry, sparsity: float, floor: KeepFloor) -> int:
    """Parameters left for units beyond the floor when that share of `dense`'s encoder parameters is removed.

    Raises BudgetError when the floor alone is larger than the budget.
    """
    smallest = dense.model_copy(
        update={
            "heads_L": tuple(min(floor.heads, heads) for heads in dense.heads_L),
            "neurons_L": tuple(min(floor.neurons, neurons) for neurons in dense.neurons_L),
        }
    )
    left = int((1.0 - sparsity) * dense.encoder_parameters()) - smallest.encoder_parameters()
    if left < 0:
        raise BudgetError(
            f"--sparsity {sparsity:.3f} cannot be met: every layer keeps at least {floor.heads} head and "
            f"{floor.neurons} neurons, so the largest possible is {smallest.encoder_sparsity(dense):.3f}"
        )
    return left


def select_units(scores: UnitScores, dense: Geometry, sparsity: float, floor: KeepFloor) -> MaskSet:
    """Keep the units with the highest score per parameter until the budget is full.

    `sparsity` is the share of `dense`'s encoder parameters to remove; the result removes at least that and
    at most one neuron's parameters more. Ties are broken by position, so the result is deterministic.

    Raises BudgetError when the floor alone is larger than the budget.
    """
    cost_head = head_parameters(dense.head_size, dense.hidden_size)
    cost_neuron = neuron_parameters(dense.hidden_size)
    forced = MaskSet(
        heads_LH=_best_of_each_row(scores.heads_LH, floor.heads),
        neurons_LF=_best_of_each_row(scores.neurons_LF, floor.neurons),
    )
    budget = check_sparsity(dense, sparsity, floor)
    kept_U = np.concatenate([forced.heads_LH.ravel(), forced.neurons_LF.ravel()])
    score_U = np.concatenate([scores.heads_LH.ravel() / cost_head, scores.neurons_LF.ravel() / cost_neuron])
    num_heads = forced.heads_LH.size
    cost_U = np.where(np.arange(kept_U.size) < num_heads, cost_head, cost_neuron)
    _fill(kept_U, score_U, cost_U, budget)
    return MaskSet(
        heads_LH=kept_U[:num_heads].reshape(forced.heads_LH.shape),
        neurons_LF=kept_U[num_heads:].reshape(forced.neurons_LF.shape),
    )


def _best_of_each_row(scores: FloatArray, count: int) -> BoolArray:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, True, axis=1)
    return kept


def _fill(kept_U: BoolArray, score_U: FloatArray, cost_U: NDArray[np.int64], budget: int) -> None:
    """Set the best units in `kept_U`; once a head does not fit, the rest goes to neurons."""
    order = np.argsort(-score_U, kind="stable")
    order = order[~kept_U[order]]
    fits = np.cumsum(cost_U[order]) <= budget
    kept_U[order[fits]] = True
    rest, smallest = order[~fits], int(cost_U.min())
    cheap = rest[cost_U[rest] == smallest]
    left = budget - int(cost_U[order[fits]].sum())
    kept_U[cheap[: left // smallest]] = True
