"""Which units to keep, given scores and a budget.

The scores of a block's best k units add up to the value of keeping k of them; what k units cost is a table
(`training.costs`). For a price λ every block takes the k with the largest value - λ * cost, and the smallest λ whose
choices fit into the budget is searched (Lagrangian relaxation of the knapsack; Everett 1963). What is then left of
the budget goes to the best units that still fit. So whole blocks leave when their fixed cost is better spent
elsewhere.

Pure: knows nothing about models, gradients or time. L layers, H heads, F neurons; K is a number of units of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsebert.errors import BudgetError, ConfigError
from sparsebert.geometry import Geometry
from sparsebert.masks import BoolArray, MaskSet
from training.budget import TOLERANCE
from training.costs import CostModel, Floats, ParameterCost
from training.importance import FloatArray, UnitScores

Scope = Literal["global", "layer"]
Counts = NDArray[np.int64]
BISECTIONS = 100
AS_MUCH = 0.99  # of the value of the best: scores are no more exact than that


@dataclass(frozen=True, kw_only=True)
class KeepFloor:
    """The fewest units that every layer keeps, whatever their scores; with 0 a block may leave whole."""

    heads: int = 0
    neurons: int = 0

    def __post_init__(self) -> None:
        if self.heads < 0 or self.neurons < 0:
            raise ConfigError(f"a layer cannot keep {self.heads} heads and {self.neurons} neurons; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class SelectionRules:
    """What a selection must obey besides its budget.

    `neuron_multiple`: FFN sizes are multiples of this. `scope`: one budget for the whole encoder, or the same share
    of every layer.
    """

    floor: KeepFloor = field(default_factory=KeepFloor)
    neuron_multiple: int = 1
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if self.neuron_multiple < 1:
            raise ConfigError(f"FFN sizes cannot be multiples of {self.neuron_multiple}; give 1 or more")


@dataclass(frozen=True, eq=False)
class _Rows:
    """Blocks of one kind: value and cost of each by its number of units [L, K]; value -inf: not allowed."""

    value_LK: Floats
    cost_LK: Floats

    def counts_at(self, price: float) -> Counts:
        counts: Counts = np.argmax(self.value_LK - price * self.cost_LK, axis=1)
        return counts

    def cheapest(self) -> Counts:
        counts: Counts = np.argmin(np.where(np.isfinite(self.value_LK), self.cost_LK, np.inf), axis=1)
        return counts

    def cost(self, counts_L: Counts) -> float:
        return float(self.cost_LK[np.arange(len(counts_L)), counts_L].sum())

    def value(self, counts_L: Counts) -> float:
        return float(self.value_LK[np.arange(len(counts_L)), counts_L].sum())

    def only(self, layer: int) -> "_Rows":
        return _Rows(self.value_LK[layer : layer + 1], self.cost_LK[layer : layer + 1])


class _Found(NamedTuple):
    """The choice in one scenario: units of each block, their value, and which share of the budget they take."""

    counts: list[Counts]
    value: float
    used: float


def select_units(
    scores: UnitScores,
    dense: Geometry,
    share: float,
    rules: SelectionRules,
    cost: CostModel | None = None,
    available: MaskSet | None = None,
) -> MaskSet:
    """Keep the units of the largest total score whose cost is at most (1 - share) of the dense encoder's.

    `cost` counts encoder parameters when it is None. Units outside `available` cannot be chosen. Ties are broken by
    position, so the result is deterministic. Raises BudgetError when floors and multiples leave no selection.
    """
    cost = cost or ParameterCost()
    order_heads, value_heads = _ranked(scores.heads_LH, None if available is None else available.heads_LH)
    order_neurons, value_neurons = _ranked(scores.neurons_LF, None if available is None else available.neurons_LF)
    _forbid(value_heads, rules.floor.heads, 1)
    _forbid(value_neurons, rules.floor.neurons, rules.neuron_multiple)
    budget = (1.0 - share) * cost.cost(dense) * (1 + 1e-12)
    found: list[_Found] = []
    for costs in cost.scenarios(dense):
        rows = [_rows(value_heads, costs.attention_LK), _rows(value_neurons, costs.ffn_LK)]
        counts = _choose(rows, budget - costs.rest, rules.scope)
        if counts is not None:
            value = sum(row.value(count) for row, count in zip(rows, counts, strict=True))
            found.append(_Found(counts, value, (costs.rest + _cost(rows, counts)) / budget))
    if not found:
        raise BudgetError(_impossible(share, dense, rules, cost))
    heads_L, neurons_L = _best(found).counts
    return MaskSet(heads_LH=_kept(order_heads, heads_L), neurons_LF=_kept(order_neurons, neurons_L))


def _best(found: Sequence[_Found]) -> _Found:
    """The most valuable, or one that is worth as much and nearer to the budget where the other is not near."""
    most = max(one.value for one in found)
    near = [one for one in found if one.used >= 1 - TOLERANCE and one.value >= AS_MUCH * most]
    return max(near or found, key=lambda one: one.value)


def check_share(dense: Geometry, share: float, rules: SelectionRules, cost: CostModel | None = None) -> None:
    """Raises BudgetError when no selection removes that share of the cost; told before training, not after."""
    flat = UnitScores(
        np.ones((dense.num_layers, max(dense.heads_L))), np.ones((dense.num_layers, max(dense.neurons_L)))
    )
    select_units(flat, dense, share, rules, cost)


def largest_share(dense: Geometry, rules: SelectionRules, cost: CostModel | None = None) -> float:
    """The largest share of the cost that floors, multiples and scope let go."""
    cost = cost or ParameterCost()
    flat_heads = np.zeros((dense.num_layers, max(dense.heads_L) + 1))
    flat_neurons = np.zeros((dense.num_layers, max(dense.neurons_L) + 1))
    _forbid(flat_heads, rules.floor.heads, 1)
    _forbid(flat_neurons, rules.floor.neurons, rules.neuron_multiple)
    least = min(
        costs.rest + _fewest([_rows(flat_heads, costs.attention_LK), _rows(flat_neurons, costs.ffn_LK)], rules.scope)
        for costs in cost.scenarios(dense)
    )
    return 1.0 - float(least) / cost.cost(dense)


def _fewest(rows: Sequence[_Rows], scope: Scope) -> float:
    """The smallest budget that a selection fits into, infinite when there is none."""
    if any(not np.isfinite(row.value_LK).any(axis=1).all() for row in rows):
        return float(np.inf)
    if scope == "global":
        return _cost(rows, [row.cheapest() for row in rows])
    dense_L = _dense_L(rows)
    least_L = [_cost(own, [row.cheapest() for row in own]) for own in _by_layer(rows)]
    return float(max(least / share for least, share in zip(least_L, dense_L / dense_L.sum(), strict=True)))


def _impossible(share: float, dense: Geometry, rules: SelectionRules, cost: CostModel) -> str:
    heads, neurons = rules.floor.heads, _least(rules, max(dense.neurons_L))
    reasons = ["embeddings and classifier stay"]
    if heads or neurons:
        reasons.insert(0, f"every layer keeps at least {heads} heads and {neurons} neurons")
    if rules.scope == "layer":
        reasons.append("every layer has the same share to lose (--prune-scope layer)")
    cures = ["ask for less"] + ["lower the floors"] * bool(heads or neurons)
    cures += ["give --prune-scope global"] * (rules.scope == "layer")
    return (
        f"{cost.told(share)} is not possible: {', '.join(reasons)}; the most is "
        f"{cost.told(max(0.0, largest_share(dense, rules, cost)))}; {' or '.join(cures)}"
    )


def _least(rules: SelectionRules, neurons: int) -> int:
    return min(neurons, -(-rules.floor.neurons // rules.neuron_multiple) * rules.neuron_multiple)


def _ranked(scores_LU: FloatArray, available_LU: BoolArray | None) -> tuple[NDArray[np.int64], Floats]:
    """Units of each layer from best to worst [L, U], and the summed scores of the best K [L, U + 1]."""
    shifted_LU = scores_LU - min(0.0, float(scores_LU.min()))  # movement scores may be negative
    if available_LU is not None:
        shifted_LU = np.where(available_LU, shifted_LU, -np.inf)
    order_LU = np.argsort(-shifted_LU, axis=1, kind="stable")
    sorted_LU = np.take_along_axis(shifted_LU, order_LU, axis=1)
    return order_LU, np.pad(np.cumsum(sorted_LU, axis=1), ((0, 0), (1, 0)))


def _forbid(value_LK: Floats, floor: int, multiple: int) -> None:
    """Numbers of units below the floor, or neither a multiple nor all, are not allowed."""
    units_K = np.arange(value_LK.shape[1])
    most = value_LK.shape[1] - 1
    value_LK[:, (units_K < min(floor, most)) | ((units_K % multiple != 0) & (units_K != most))] = -np.inf


def _rows(value_LK: Floats, cost_LK: Floats) -> _Rows:
    allowed = np.isfinite(cost_LK)
    return _Rows(np.where(allowed, value_LK, -np.inf), np.where(allowed, cost_LK, 0.0))


def _choose(rows: Sequence[_Rows], budget: float, scope: Scope) -> list[Counts] | None:
    """Units of each block, or None when even the fewest do not fit."""
    if scope == "global":
        return _solve(rows, budget)
    dense_L = _dense_L(rows)
    chosen = [_solve(own, budget * share) for own, share in zip(_by_layer(rows), dense_L / dense_L.sum(), strict=True)]
    if any(counts is None for counts in chosen):
        return None
    return [np.concatenate([counts[kind] for counts in chosen if counts is not None]) for kind in range(len(rows))]


def _by_layer(rows: Sequence[_Rows]) -> list[list[_Rows]]:
    return [[row.only(layer) for row in rows] for layer in range(len(rows[0].cost_LK))]


def _dense_L(rows: Sequence[_Rows]) -> Floats:
    """The cost of each layer with all of its units."""
    return np.array([sum(float(row.cost_LK[layer].max()) for row in rows) for layer in range(len(rows[0].cost_LK))])


def _solve(rows: Sequence[_Rows], budget: float) -> list[Counts] | None:
    if any(not np.isfinite(row.value_LK).any(axis=1).all() for row in rows):
        return None
    counts = [row.cheapest() for row in rows]
    if _cost(rows, counts) > budget:
        return None
    low, high = 0.0, _price_of_nothing(rows)
    for _ in range(BISECTIONS):
        price = (low + high) / 2
        tried = [row.counts_at(price) for row in rows]
        if _cost(rows, tried) <= budget:
            high, counts = price, tried
        else:
            low = price
    _fill(rows, counts, budget)
    return counts


def _price_of_nothing(rows: Sequence[_Rows]) -> float:
    """A price at which no block takes more than it must."""
    values = [float(np.max(row.value_LK[np.isfinite(row.value_LK)], initial=0.0)) for row in rows]
    steps = [np.abs(np.diff(np.unique(row.cost_LK))) for row in rows]
    return 2.0 * sum(values) / min((float(step.min()) for step in steps if step.size), default=1.0) + 1e-300


def _fill(rows: Sequence[_Rows], counts: list[Counts], budget: float) -> None:
    """Spend what is left: again and again the block that gains most by taking as many more units as fit."""
    while True:
        left = budget - _cost(rows, counts)
        best: tuple[float, int, int, int] | None = None
        for kind, row in enumerate(rows):
            for layer, count in enumerate(counts[kind]):
                more = _affordable(row, layer, int(count), left)
                if more is not None:
                    gain = float(row.value_LK[layer, more] - row.value_LK[layer, count])
                    if best is None or gain > best[0]:
                        best = gain, kind, layer, more
        if best is None:
            return
        counts[best[1]][best[2]] = best[3]


def _affordable(row: _Rows, layer: int, count: int, left: float) -> int | None:
    """The largest allowed number of units above `count` that costs at most `left` more."""
    extra_K = row.cost_LK[layer] - row.cost_LK[layer, count]
    fits = np.flatnonzero(np.isfinite(row.value_LK[layer]) & (extra_K <= left))
    return int(fits[-1]) if fits.size and fits[-1] > count else None


def _cost(rows: Sequence[_Rows], counts: Sequence[Counts]) -> float:
    return sum(row.cost(count) for row, count in zip(rows, counts, strict=True))


def _kept(order_LU: NDArray[np.int64], counts_L: Counts) -> BoolArray:
    kept_LU = np.zeros(order_LU.shape, bool)
    np.put_along_axis(kept_LU, order_LU, np.arange(order_LU.shape[1]) < counts_L[:, None], axis=1)
    return kept_LU
