import numpy as np
import pytest
import torch

from sparsebert.masks import MaskSet
from training.importance import RunningScores, UnitScores
from training.importance.gradient import GradientImportance
from training.masking import Gates, fixed_gates

MASKS = MaskSet(
    heads_LH=np.array([[True, False], [False, False]]), neurons_LF=np.array([[False, False], [True, False]])
)


def test_fixed_gates_are_the_masks():
    gates = fixed_gates(MASKS)
    assert gates.heads_LH.tolist() == [[1, 0], [0, 0]]
    assert gates.attention_L == (True, False)
    assert gates.ffn_L == (False, True)


def test_a_gate_has_the_value_of_the_mask_and_the_gradient_of_the_gate():
    gates = Gates(MASKS)
    with torch.no_grad():
        gates.heads_LH.fill_(0.3)
    z = gates()
    assert z.heads_LH.tolist() == [[1, 0], [0, 0]]
    (z.heads_LH * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert gates.heads_LH.grad.tolist() == [[1, 2], [3, 4]]  # also where the mask is closed


def test_gradient_importance_is_the_absolute_gradient_and_clears_it():
    gates = Gates(MASKS)
    z = gates()
    ((z.heads_LH * torch.tensor([[1.0, -2.0], [3.0, 0.0]])).sum() + (z.neurons_LF * -0.5).sum()).backward()
    scores = GradientImportance().score(gates)
    assert scores.heads_LH.tolist() == [[1, 2], [3, 0]]
    assert scores.neurons_LF.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert gates.heads_LH.grad is None


def test_a_removed_block_scores_zero():
    scores = GradientImportance().score(Gates(MASKS))
    assert scores.heads_LH.tolist() == [[0, 0], [0, 0]]


def test_running_scores_are_unbiased_from_the_start():
    running = RunningScores(0.9)
    assert running.average is None
    running.observe(UnitScores(np.array([[4.0]]), np.array([[2.0]])))
    assert running.average.heads_LH == pytest.approx(4.0)
    running.observe(UnitScores(np.array([[0.0]]), np.array([[2.0]])))
    assert running.average.heads_LH == pytest.approx(4.0 * 0.09 / 0.19)
    assert running.average.neurons_LF == pytest.approx(2.0)


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="another shape"):
        Gates(MASKS).set_masks(MaskSet.dense(2, 3, 2))
