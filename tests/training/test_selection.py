import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.errors import BudgetError, ConfigError
from sparsebert.geometry import Geometry
from training.importance import UnitScores
from training.pruner import masked_geometry
from training.selection import KeepFloor, select_units

# a head costs 3 * (8 * 2 + 2) + 2 * 8 = 70 parameters, a neuron 2 * 8 + 1 = 17
DENSE = Geometry(
    hidden_size=8, head_size=2, heads_L=(4, 4), neurons_L=(10, 10), vocabulary_size=9, max_positions=9, token_types=2,
    num_labels=2,
)  # fmt: skip
FLOOR = KeepFloor(heads=1, neurons=1)


def test_the_best_units_per_parameter_stay():
    heads = np.array([[9.0, 1, 1, 1], [8, 7, 1, 1]]) * 70
    neurons = np.array([[6.0] * 5 + [0] * 5, [0.5] * 10]) * 17
    # encoder: 4 blocks' fixed 2 * 8 + 8 = 24 each = 96, 8 heads = 560, 20 neurons = 340: 996
    # 3 heads + 6 neurons + 96 = 408 parameters: sparsity 0.59
    masks = select_units(UnitScores(heads, neurons), DENSE, 1 - 408 / 996, FLOOR)
    assert masks.heads_LH.tolist() == [[True, False, False, False], [True, True, False, False]]
    assert masks.kept_neurons_L() == (5, 1)


def test_what_a_head_leaves_over_goes_to_neurons():
    heads = np.full((2, 4), 700.0)
    neurons = np.arange(20.0).reshape(2, 10) / 1000
    # floor: 96 + 2 * 70 + 2 * 17 = 270; 60 more are no head but three neurons (51)
    masks = select_units(UnitScores(heads, neurons), DENSE, 1 - 330 / 996, FLOOR)
    assert masks.kept_heads_L() == (1, 1)
    assert masks.kept_neurons_L() == (1, 4)  # the floor's best and 16, 17, 18 of layer 1


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sparsity=st.floats(0, 0.7))
def test_the_budget_is_met_within_one_neuron(seed, sparsity):
    rng = np.random.default_rng(seed)
    masks = select_units(UnitScores(rng.random((2, 4)), rng.random((2, 10))), DENSE, sparsity, FLOOR)
    kept = masked_geometry(DENSE, masks).encoder_parameters()
    budget = (1 - sparsity) * DENSE.encoder_parameters()
    assert kept <= budget
    all_neurons = sum(masks.kept_neurons_L()) == 20
    assert kept > budget - 17 - 1 or (all_neurons and kept > budget - 70 - 1)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_larger_score_never_loses_a_unit(seed):
    rng = np.random.default_rng(seed)
    heads, neurons = rng.random((2, 4)), rng.random((2, 10))
    before = select_units(UnitScores(heads, neurons), DENSE, 0.5, FLOOR)
    row, column = np.argwhere(before.neurons_LF)[0]
    neurons[row, column] += 1.0
    assert select_units(UnitScores(heads, neurons), DENSE, 0.5, FLOOR).neurons_LF[row, column]


def test_every_layer_keeps_its_floor_at_the_largest_sparsity():
    heads, neurons = np.zeros((2, 4)), np.zeros((2, 10))
    heads[0] = neurons[0] = 1.0
    masks = select_units(UnitScores(heads, neurons), DENSE, 1 - 270 / 996, FLOOR)
    assert masks.kept_heads_L() == (1, 1)
    assert masks.kept_neurons_L() == (1, 1)


def test_an_impossible_budget_says_what_is_possible():
    with pytest.raises(BudgetError, match=r"--sparsity 0.950 cannot be met: .* largest possible is 0.729"):
        select_units(UnitScores(np.zeros((2, 4)), np.zeros((2, 10))), DENSE, 0.95, FLOOR)


def test_a_floor_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="at least 1 head and 1 neuron"):
        KeepFloor(heads=0)
