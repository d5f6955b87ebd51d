import numpy as np
import pytest
import torch

from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.costs import MacCost, ParameterCost
from training.hard_concrete import HardConcreteGates
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification
from training.recipes import demo
from training.regularization import GateL0, RegularizerConfig, make_gates, make_regularizer
from training.schedule import RampConfig, SparsityRamp
from training.units import neuron_weight_norms_LF

# a head costs 3 * (4 * 2 + 2) + 2 * 4 = 38 parameters, a neuron 2 * 4 + 1 = 9
DENSE = Geometry(
    hidden_size=4, head_size=2, heads_L=(2, 2), neurons_L=(3, 3), vocabulary_size=9, max_positions=8, token_types=2,
    num_labels=2,
)  # fmt: skip
MASKS = MaskSet.dense(2, 2, 3)


@pytest.fixture
def model() -> SparseBertForSequenceClassification:
    torch.manual_seed(0)
    return SparseBertForSequenceClassification(
        SparseBertConfig(
            vocab_size=9,
            hidden_size=4,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=3,
            head_size=2,
            num_labels=2,
            max_position_embeddings=8,
        )
    )


def regularizer_of(name, strength=0.5):
    gates = make_gates(name, MASKS)
    return gates, make_regularizer(RegularizerConfig(name=name, strength=strength), gates, DENSE)


def test_without_a_regularizer_there_is_no_penalty(model):
    _, regularizer = regularizer_of("none", None)
    assert regularizer.penalty(model, 0.5) is None
    assert regularizer.multipliers() == []


def test_l1_weighs_gates_by_what_they_cost(model):
    gates, regularizer = regularizer_of("l1")
    penalty = regularizer.penalty(model, 0.0)
    assert penalty.item() == pytest.approx(0.5 * (4 * 38 / 9 + 6))
    penalty.backward()
    assert gates.heads_LH.grad[0, 0] == pytest.approx(0.5 * 38 / 9)
    assert gates.neurons_LF.grad[0, 0] == pytest.approx(0.5)


def test_l1_shrinks_gates_step_by_step(model):
    gates, regularizer = regularizer_of("l1", 0.01)
    optimizer = torch.optim.SGD(gates.parameters(), lr=1.0)
    for _ in range(10):
        optimizer.zero_grad()
        regularizer.penalty(model, 0.0).backward()
        optimizer.step()
    assert gates.openness().neurons_LF == pytest.approx(np.full((2, 3), 0.9))


def test_group_lasso_shrinks_whole_units(model):
    _, regularizer = regularizer_of("group-lasso", 0.01)
    before = neuron_weight_norms_LF(model).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    regularizer.penalty(model, 0.0).backward()
    optimizer.step()
    lost = before - neuron_weight_norms_LF(model).detach()
    assert lost.numpy() == pytest.approx(np.full((2, 3), 0.01 * 8**0.5), rel=1e-3)  # strength * sqrt(2 * 4 weights)


def test_hard_concrete_gates_start_open_and_are_closed_at_random():
    torch.manual_seed(0)
    gates = HardConcreteGates(MASKS)
    z = gates().neurons_LF
    assert z.shape == (2, 3)
    assert z.min().item() >= 0.0
    assert z.max().item() <= 1.0
    with torch.no_grad():
        gates.neurons_LF.fill_(0.0)
    draws = torch.stack([gates().neurons_LF.detach() for _ in range(400)])
    assert 0.1 < float((draws == 0).float().mean()) < 0.4  # P(z = 0) = sigmoid(-(0 - 2/3 * ln(0.1 / 1.1))) = 0.17
    assert gates.open_probabilities()[1][0, 0].item() == pytest.approx(0.8318, abs=1e-3)
    with torch.no_grad():
        assert gates().neurons_LF.tolist() == [[0.5] * 3] * 2  # the median draw


@pytest.mark.parametrize("num_steps", [54, 174, 536])
@pytest.mark.parametrize("ramp", [demo().pruning.ramp, RampConfig(shape="cubic", frozen_share=0.1)])
def test_l0_meets_its_share_at_the_cut_in_few_steps_and_in_many(ramp, num_steps):
    """54 are those of the recipe of the demo; units are worth something to the task, most of them little."""
    torch.manual_seed(0)
    masks, target = MaskSet.dense(6, 12, 96), SparsityRamp(final=0.67, config=ramp)
    gates = make_gates("l0", masks)
    wide = DENSE.model_copy(update={"heads_L": (12,) * 6, "neurons_L": (96,) * 6})
    regularizer = make_regularizer(RegularizerConfig(name="l0"), gates, wide)
    assert isinstance(regularizer, GateL0)
    optimizer = torch.optim.AdamW(regularizer.parameter_groups(target.steps_to_prune(num_steps)))
    worth_LF = torch.rand(6, 96) ** 3 * 4 / 576
    for step in range(num_steps):
        loss = -(gates._draw()[1] * worth_LF).sum()
        (loss + regularizer.penalty(None, target.pull(step, num_steps))).backward()
        if target.is_frozen(step + 1, num_steps):
            break
        optimizer.step()
        optimizer.zero_grad()
    assert regularizer.expected_share().item() == pytest.approx(0.67, abs=0.04)
    assert regularizer.missed(0.67) == ""
    open_LF = torch.from_numpy(gates.openness().neurons_LF)
    best, rest = worth_LF >= worth_LF.quantile(0.8), worth_LF < worth_LF.quantile(0.5)
    assert open_LF[best].mean() > open_LF[rest].mean() + 0.1


def test_units_that_an_earlier_target_removed_start_nearly_shut():
    masks = MaskSet(heads_LH=np.array([[1, 0], [1, 1]], bool), neurons_LF=np.array([[1, 1, 0], [1, 1, 1]], bool))
    openness = HardConcreteGates(masks).openness()
    assert openness.heads_LH == pytest.approx(np.array([[0.984, 0.1], [0.984, 0.984]]), abs=1e-2)
    assert openness.neurons_LF[0, 2] == pytest.approx(0.1, abs=1e-2)


def test_l0_counts_in_the_currency_of_the_budget_and_what_is_gone_already(model):
    masks = MaskSet(heads_LH=np.array([[1, 1], [0, 0]], bool), neurons_LF=np.ones((2, 3), bool))
    gates = make_gates("l0", masks)
    for cost in (ParameterCost(), MacCost(100)):
        regularizer = make_regularizer(RegularizerConfig(name="l0"), gates, DENSE, cost)
        with torch.no_grad():
            gates.heads_LH.fill_(-9.0)
            gates.neurons_LF.fill_(9.0)
        without_heads = DENSE.model_copy(update={"heads_L": (0, 0)})
        expected = 1 - cost.cost(without_heads) / cost.cost(DENSE)
        assert regularizer.expected_share().item() == pytest.approx(expected, abs=0.01)
        with torch.no_grad():
            gates.heads_LH.fill_(9.0)
        assert regularizer.expected_share().item() == pytest.approx(expected / 2, abs=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"name": "l7"}, "--regularizer 'l7' is unknown"), ({"name": "l1", "strength": -1.0}, "must be above 0")],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        RegularizerConfig(**values)
