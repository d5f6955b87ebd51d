import numpy as np
import pytest
import torch

from sparsebert.errors import ConfigError
from sparsebert.masks import MaskSet
from training.criteria import IMPORTANCE_NAMES, check_importance, make_importance
from training.importance import Signals, UnitScores
from training.importance.activation import ActivationImportance
from training.masking import Gates
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification
from training.units import layers_of, scale_units

IDS = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
GRADIENTS = UnitScores(np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([[-1.0, 0.5, 0.0], [2.0, 0.0, -4.0]]))


@pytest.fixture
def model() -> SparseBertForSequenceClassification:
    torch.manual_seed(0)
    config = SparseBertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=3, head_size=2,
        num_labels=2, max_position_embeddings=8,
    )  # fmt: skip
    model = SparseBertForSequenceClassification(config)
    model.set_dropout(0.0)
    return model


def signals(model) -> Signals:
    openness = UnitScores(np.full((2, 2), 0.5), np.full((2, 3), 0.25))
    absolute, squared = (UnitScores(*map(function, GRADIENTS)) for function in (np.abs, np.square))
    return Signals(model, GRADIENTS, absolute, squared, openness)


@pytest.mark.parametrize(
    ("name", "heads", "neurons"),
    [
        ("gradient", [[1, 2], [0, 3]], [[1, 0.5, 0], [2, 0, 4]]),
        ("fisher", [[1, 4], [0, 9]], [[1, 0.25, 0], [4, 0, 16]]),
        ("margin", [[1, 4], [0, 9]], [[1, 0.25, 0], [4, 0, 16]]),
        ("movement", [[-1, 2], [0, -3]], [[1, -0.5, 0], [-2, 0, 4]]),
        ("gate", [[0.5, 0.5], [0.5, 0.5]], [[0.25] * 3, [0.25] * 3]),
    ],
)
def test_criteria_of_signals_alone(model, name, heads, neurons):
    scores = make_importance(name, seed=0).score(signals(model))
    assert scores.heads_LH.tolist() == heads
    assert scores.neurons_LF.tolist() == neurons


def test_only_movement_accumulates():
    assert [name for name in IMPORTANCE_NAMES if make_importance(name, 0).accumulates] == ["movement"]


def test_magnitude_is_the_squared_norm_of_what_leaves_with_a_unit(model):
    with torch.no_grad():
        for parameter in model.bert.encoder.parameters():
            parameter.zero_()
        layer = layers_of(model)[1]
        layer.attention.self.value.weight[2] = torch.tensor([3.0, 0, 0, 0])  # head 1 begins at row 2
        layer.attention.output.dense.weight[0, 3] = 4.0
        layer.intermediate.dense.weight[2] = torch.tensor([0, 5.0, 0, 0])
        layer.output.dense.weight[1, 2] = 12.0
    scores = make_importance("magnitude", seed=0).score(signals(model))
    assert scores.heads_LH == pytest.approx(np.array([[0, 0], [0, 25]]))
    assert scores.neurons_LF == pytest.approx(np.array([[0, 0, 0], [0, 0, 169]]))


def test_activation_is_what_a_unit_says_times_how_much_is_listened_also_where_it_is_pruned(model):
    importance = ActivationImportance()
    importance.attach(model)
    seen = {}
    layer = layers_of(model)[0]
    layer.intermediate.register_forward_hook(lambda _, __, output: seen.update(units=output.detach()))
    closed = MaskSet(heads_LH=np.zeros((2, 2), bool), neurons_LF=np.zeros((2, 3), bool))
    gates = Gates(MaskSet.dense(2, 2, 3))
    gates.set_masks(closed)
    model.train()
    model(IDS, attention_mask=torch.ones_like(IDS), gates=gates())
    first = seen["units"].flatten(0, 1)
    padded = torch.ones_like(IDS)
    padded[:, -1] = 0
    model(IDS, attention_mask=padded, gates=gates())  # a second micro-batch, with padding
    units = torch.cat([first, seen["units"][:, :-1].flatten(0, 1)])
    scores = importance.score(signals(model))
    norms = layer.output.dense.weight.norm(dim=0).detach()
    expected = units.abs().mean(dim=0) * norms * 0.25  # so open are the gates of neurons
    assert scores.neurons_LF[0] == pytest.approx(expected.numpy(), rel=1e-5)
    assert (scores.heads_LH > 0).all()
    importance.detach()
    assert not layer.attention.self._forward_hooks


def test_random_is_one_fixed_order(model):
    one, other = make_importance("random", seed=3), make_importance("random", seed=4)
    first = one.score(signals(model))
    assert np.array_equal(first.heads_LH, one.score(signals(model)).heads_LH)
    assert not np.array_equal(first.neurons_LF, other.score(signals(model)).neurons_LF)


def test_scaling_what_reads_units_is_the_same_as_gates(model):
    model.eval()
    heads, neurons = torch.tensor([[0.5, 2.0], [1.0, 0.0]]), torch.tensor([[1.0, 3.0, 0.5], [0.0, 1.0, 1.0]])
    gates = Gates(MaskSet.dense(2, 2, 3))()._replace(heads_LH=heads, neurons_LF=neurons)
    with torch.inference_mode():
        gated = model(IDS, gates=gates).logits
    scale_units(model, heads, neurons)
    with torch.inference_mode():
        assert torch.allclose(model(IDS).logits, gated, atol=1e-6)


def test_an_unknown_criterion_is_refused():
    with pytest.raises(ConfigError, match="--importance 'guess' is unknown; choose from gradient, fisher"):
        check_importance("guess")
