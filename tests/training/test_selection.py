import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.errors import BudgetError, ConfigError
from sparsebert.geometry import Geometry
from sparsebert.latency import Curve, ShapeLatency
from sparsebert.masks import MaskSet
from training.budget import missed_budget
from training.costs import LatencyCost, MacCost, ParameterCost
from training.importance import UnitScores
from training.pruner import masked_geometry
from training.selection import KeepFloor, SelectionRules, _best, _Found, largest_share, select_units

# a head costs 3 * (8 * 2 + 2) + 2 * 8 = 70 parameters, a neuron 2 * 8 + 1 = 17
DENSE = Geometry(
    hidden_size=8, head_size=2, heads_L=(4, 4), neurons_L=(10, 10), vocabulary_size=9, max_positions=9, token_types=2,
    num_labels=2,
)  # fmt: skip
RULES = SelectionRules(floor=KeepFloor(heads=1, neurons=1))


def test_the_best_units_per_parameter_stay():
    heads = np.array([[9.0, 1, 1, 1], [8, 7, 1, 1]]) * 70
    neurons = np.array([[6.0] * 5 + [0] * 5, [0.5] * 10]) * 17
    # encoder: 4 blocks' fixed 2 * 8 + 8 = 24 each = 96, 8 heads = 560, 20 neurons = 340: 996
    # 3 heads + 6 neurons + 96 = 408 parameters: sparsity 0.59
    masks = select_units(UnitScores(heads, neurons), DENSE, 1 - 408 / 996, RULES)
    assert masks.heads_LH.tolist() == [[True, False, False, False], [True, True, False, False]]
    assert masks.kept_neurons_L() == (5, 1)


def test_what_a_head_leaves_over_goes_to_neurons():
    heads = np.full((2, 4), 700.0)
    neurons = np.arange(20.0).reshape(2, 10) / 1000
    # floor: 96 + 2 * 70 + 2 * 17 = 270; 60 more are no head but three neurons (51)
    masks = select_units(UnitScores(heads, neurons), DENSE, 1 - 330 / 996, RULES)
    assert masks.kept_heads_L() == (1, 1)
    assert masks.kept_neurons_L() == (1, 4)  # the floor's best and 16, 17, 18 of layer 1


@given(seed=st.integers(0, 2**32 - 1), sparsity=st.floats(0, 0.7))
def test_the_budget_is_met_within_one_neuron(seed, sparsity):
    rng = np.random.default_rng(seed)
    masks = select_units(UnitScores(rng.random((2, 4)), rng.random((2, 10))), DENSE, sparsity, RULES)
    kept = masked_geometry(DENSE, masks).encoder_parameters()
    budget = (1 - sparsity) * DENSE.encoder_parameters()
    assert kept <= budget * (1 + 1e-9)
    all_neurons = sum(masks.kept_neurons_L()) == 20
    assert kept > budget - 17 - 1 or (all_neurons and kept > budget - 70 - 1)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_larger_score_never_loses_a_unit(seed):
    rng = np.random.default_rng(seed)
    heads, neurons = rng.random((2, 4)), rng.random((2, 10))
    before = select_units(UnitScores(heads, neurons), DENSE, 0.5, RULES)
    row, column = np.argwhere(before.neurons_LF)[0]
    neurons[row, column] += 1.0
    assert select_units(UnitScores(heads, neurons), DENSE, 0.5, RULES).neurons_LF[row, column]


def test_every_layer_keeps_its_floor_at_the_largest_sparsity():
    heads, neurons = np.zeros((2, 4)), np.zeros((2, 10))
    heads[0] = neurons[0] = 1.0
    masks = select_units(UnitScores(heads, neurons), DENSE, 1 - 270 / 996, RULES)
    assert masks.kept_heads_L() == (1, 1)
    assert masks.kept_neurons_L() == (1, 1)


def test_an_impossible_budget_says_what_is_possible():
    with pytest.raises(
        BudgetError,
        match=r"removing 95.0% .* every layer keeps .* most is removing 72.9% .*; ask for less or lower the floors$",
    ):
        select_units(UnitScores(np.zeros((2, 4)), np.zeros((2, 10))), DENSE, 0.95, RULES)
    assert largest_share(DENSE, RULES) == pytest.approx(1 - 270 / 996)


def test_without_floors_none_are_to_be_lowered_and_time_is_told_as_a_speedup():
    flat = UnitScores(np.zeros((2, 4)), np.zeros((2, 10)))
    with pytest.raises(BudgetError) as error:
        select_units(flat, DENSE, 1 - 1 / 500, SelectionRules(), LatencyCost(SHAPE))
    assert str(error.value) == (
        "a speedup of 500 is not possible: embeddings and classifier stay; the most is a speedup of 14; ask for less"
    )


def test_the_most_that_a_layer_can_lose_binds_in_layer_scope():
    rules = SelectionRules(floor=KeepFloor(heads=1, neurons=2), scope="layer")
    most = largest_share(DENSE, rules, LatencyCost(SHAPE))
    flat = UnitScores(np.ones((2, 4)), np.ones((2, 10)))
    select_units(flat, DENSE, most - 1e-6, rules, LatencyCost(SHAPE))
    with pytest.raises(BudgetError, match="the same share to lose .* or give --prune-scope global"):
        select_units(flat, DENSE, most + 1e-3, rules, LatencyCost(SHAPE))
    assert most < largest_share(DENSE, SelectionRules(floor=rules.floor), LatencyCost(SHAPE))


def test_a_selection_worth_as_much_that_takes_the_budget_is_preferred():
    far, near, poor = (_Found([], value, used) for value, used in ((100.0, 0.6), (99.5, 0.995), (90.0, 1.0)))
    assert _best([far, near, poor]) is near
    assert _best([far, poor]) is far


def test_a_missed_budget_claims_no_more_than_was_looked_at():
    assert missed_budget(0.5, 0.5) == ""
    assert missed_budget(0.6, 0.5) == (
        "60.00% are removed instead of 50.00%: the most valuable whole units that were found leave 20.0% of the budget "
        "unused"
    )


def test_a_negative_floor_is_refused():
    with pytest.raises(ConfigError, match="cannot keep -1 heads"):
        KeepFloor(heads=-1)
    with pytest.raises(ConfigError, match="multiples of 0"):
        SelectionRules(neuron_multiple=0)


def test_a_block_leaves_whole_when_its_fixed_cost_is_better_spent():
    heads = np.array([[9.0] * 4, [9.0] * 4])
    neurons = np.array([[5.0] * 10, [0.01] + [0.0] * 9])
    # without the floor: everything but layer 1's FFN (fixed 24 + 10 * 17 = 194 of 996)
    masks = select_units(UnitScores(heads, neurons), DENSE, 194 / 996, SelectionRules())
    assert masks.kept_heads_L() == (4, 4)
    assert masks.kept_neurons_L() == (10, 0)


def test_negative_scores_are_ranked_too():
    heads, neurons = np.full((2, 4), 700.0), -np.arange(20.0).reshape(2, 10)
    masks = select_units(UnitScores(heads, neurons), DENSE, 0.2, RULES)
    assert masks.kept_neurons_L() == (7, 1)  # layer 0 has the larger ones, 199 parameters must go: 12 neurons
    assert masks.neurons_LF[0].tolist() == [True] * 7 + [False] * 3


def test_units_that_are_not_available_stay_away():
    available = MaskSet.dense(2, 4, 10)
    available.heads_LH[0, 0] = available.neurons_LF[1, :6] = False
    scores = UnitScores(np.ones((2, 4)), np.ones((2, 10)))
    masks = select_units(scores, DENSE, 0.1, RULES, available=available)
    assert not masks.heads_LH[0, 0]
    assert masks.kept_neurons_L() == (10, 4)


def test_ffn_sizes_are_multiples():
    rng = np.random.default_rng(0)
    rules = SelectionRules(floor=KeepFloor(heads=1, neurons=1), neuron_multiple=4)
    scores = UnitScores(rng.random((2, 4)), rng.random((2, 10)))
    kept = [select_units(scores, DENSE, share, rules).kept_neurons_L() for share in (0.1, 0.3, 0.5, 0.6)]
    assert {neurons for row in kept for neurons in row} <= {4, 8, 10}


def test_every_layer_loses_the_same_share_in_layer_scope():
    heads, neurons = np.ones((2, 4)), np.ones((2, 10))
    heads[0] = neurons[0] = 100.0
    rules = SelectionRules(scope="layer")
    masks = select_units(UnitScores(heads, neurons), DENSE, 0.5, rules)
    # 249 parameters for each layer: 24 + 10 * 17 = 194 for the FFN, and the 55 left are no first head (24 + 70)
    assert masks.kept_neurons_L() == (10, 10)
    assert masks.kept_heads_L() == (0, 0)


SHAPE = ShapeLatency(
    precision="fp32",
    batch=1,
    tokens=8,
    rest_ms=1.0,
    attention=Curve(units=(0, 1, 4), times_ms=(0.0, 2.0, 5.0)),
    ffn=Curve(units=(0, 2, 10), times_ms=(0.0, 1.0, 5.0)),
    last_attention=Curve(units=(0, 1, 4), times_ms=(0.0, 1.0, 2.0)),
    last_ffn=Curve(units=(0, 2, 10), times_ms=(0.0, 0.5, 1.0)),
)


@pytest.mark.parametrize("cost", [ParameterCost(), MacCost(8), LatencyCost(SHAPE)])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.7))
def test_costs_by_blocks_add_up_and_the_budget_is_kept(cost, seed, share):
    rng = np.random.default_rng(seed)
    masks = select_units(UnitScores(rng.random((2, 4)), rng.random((2, 10))), DENSE, share, SelectionRules(), cost)
    left = masked_geometry(DENSE, masks)
    assert cost.cost(left) <= (1 - share) * cost.cost(DENSE) * (1 + 1e-9)
    layers = range(2)
    sums = [
        costs.rest
        + sum(
            costs.attention_LK[layer, left.heads_L[layer]] + costs.ffn_LK[layer, left.neurons_L[layer]]
            for layer in layers
        )
        for costs in cost.scenarios(DENSE)
    ]
    assert min(sums) == pytest.approx(cost.cost(left))  # the others are not allowed: infinite


def test_time_is_spent_where_it_is_cheap():
    # dense: 1 + 5 + 5 + 2 + 1 = 14 ms; after the last attention neurons cost a tenth, so they stay
    flat = UnitScores(np.ones((2, 4)), np.ones((2, 10)))
    masks = select_units(flat, DENSE, 0.5, SelectionRules(), LatencyCost(SHAPE))
    assert masks.kept_neurons_L()[1] == 10
    assert LatencyCost(SHAPE).cost(masked_geometry(DENSE, masks)) <= 7.0
