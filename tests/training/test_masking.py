import numpy as np
import pytest
import torch

from sparsebert.masks import MaskSet
from training.importance import RunningScores, UnitScores, balanced
from training.masking import Gates, LearnedGates, fixed_gates, unchanged

MASKS = MaskSet(
    heads_LH=np.array([[True, False], [False, False]]), neurons_LF=np.array([[False, False], [True, False]])
)
WEIGHTS = torch.tensor([[1.0, -2.0], [3.0, 0.0]])


def closed_after_start(masks: MaskSet, gates_class=Gates) -> Gates:
    """Gates over a model whose blocks were all there, with some units closed since."""
    gates = gates_class(MaskSet.dense(2, 2, 2))
    gates.set_masks(masks)
    return gates


def test_fixed_gates_are_the_masks():
    gates = fixed_gates(MASKS)
    assert gates.heads_LH.tolist() == [[1, 0], [0, 0]]
    assert gates.attention_L == (True, False)
    assert gates.ffn_L == (False, True)


def test_gates_have_the_value_of_the_mask_and_gradients_everywhere():
    gates = closed_after_start(MASKS)
    z = gates(num_texts=2)
    assert z.heads_LH[:, 1, 0].tolist() == [[1, 0], [0, 0]]
    # the mean over two texts: the first has the loss 2 * WEIGHTS, the second none of the heads
    ((z.heads_LH[:, 0, 0] * 2 * WEIGHTS).sum() / 2 + (z.neurons_LF * -0.5).sum() / 2).backward()
    gradients = gates.backward()
    assert gradients.mean.heads_LH.tolist() == [[1, -2], [3, 0]]  # also where the mask is closed
    assert gradients.absolute.heads_LH.tolist() == [[1, 2], [3, 0]]
    assert gradients.squares.heads_LH.tolist() == [[2, 8], [18, 0]]  # (4 + 0) / 2, ...
    assert gradients.mean.neurons_LF.tolist() == [[-0.5, -0.5], [-0.5, -0.5]]


def test_micro_batches_are_one_step_and_the_loss_scale_is_taken_out():
    gates = closed_after_start(MASKS)
    for factor in (1.0, 3.0):  # two texts, one in each micro-batch
        (8.0 * factor * (gates(num_texts=1).heads_LH[:, 0, 0] * WEIGHTS).sum() / 2).backward()
    gradients = gates.backward(loss_scale=8.0)
    assert gradients.mean.heads_LH.tolist() == [[2, -4], [6, 0]]
    assert gradients.squares.heads_LH.tolist() == [[5, 20], [45, 0]]  # (1 + 9) / 2 times the squared weights


def test_a_text_that_does_not_count_in_the_loss_changes_nothing():
    """Where a process has no text left of a batch it computes one with weight 0: here one process of two."""
    gates = closed_after_start(MASKS)
    (0.0 * (gates(num_texts=1).heads_LH[:, 0, 0] * WEIGHTS).sum()).backward()
    idle = gates.backward(num_texts=0)
    (2.0 * (gates(num_texts=1).heads_LH[:, 0, 0] * WEIGHTS).sum()).backward()  # the weight of one text, two processes
    numbers = iter(((0.0 + 1.0) / 2,) * 2)  # of texts, for heads and for neurons
    halves = gates.backward(
        num_texts=1, reduce=lambda tensor: torch.tensor(next(numbers)) if tensor.ndim == 0 else tensor / 2
    )
    assert idle.squares.heads_LH.tolist() == [[0, 0], [0, 0]]
    assert halves.mean.heads_LH.tolist() == WEIGHTS.tolist()
    assert halves.squares.heads_LH.tolist() == WEIGHTS.square().tolist()


def test_gradients_are_averaged_over_processes_before_anything_sees_them():
    gates = closed_after_start(MASKS, LearnedGates)
    (gates(num_texts=1).heads_LH[:, 0, 0] * WEIGHTS).sum().backward()
    assert gates.backward(reduce=lambda tensor: tensor + 1).mean.heads_LH.tolist() == [[2, -1], [4, 1]]
    assert gates.heads_LH.grad.tolist() == [[2, -1], [4, 1]]


def test_learned_gates_multiply_the_mask():
    gates = closed_after_start(MASKS, LearnedGates)
    with torch.no_grad():
        gates.heads_LH.fill_(0.25)
    z = gates(num_texts=1)
    assert z.heads_LH[:, 0, 0].tolist() == [[0.25, 0], [0, 0]]
    assert gates.openness().heads_LH.tolist() == [[0.25, 0.25], [0.25, 0.25]]
    (z.heads_LH[:, 0, 0] * WEIGHTS).sum().backward()
    gradients = gates.backward(reduce=unchanged)
    assert gradients.absolute.heads_LH == pytest.approx(0.25 * WEIGHTS.abs().numpy())
    assert gradients.squares.heads_LH == pytest.approx(0.0625 * WEIGHTS.square().numpy())
    assert gates.heads_LH.grad.tolist() == WEIGHTS.tolist()


def test_a_step_without_forward_pass_is_a_mistake():
    with pytest.raises(ValueError, match="not used"):
        closed_after_start(MASKS).backward()


def test_emptied_blocks_are_computed_until_the_structure_is_final():
    gates = closed_after_start(MASKS)
    assert gates().attention_L == (True, True)
    gates.fix()
    assert gates().attention_L == (True, False)
    assert gates().ffn_L == (False, True)
    assert not gates().heads_LH.requires_grad


def test_blocks_that_were_empty_from_the_start_stay_away():
    gates = Gates(MASKS)
    assert gates().attention_L == (True, False)
    assert gates.available.heads_LH.tolist() == [[True, True], [False, False]]
    assert gates.available.neurons_LF.tolist() == [[False, False], [True, True]]


def test_heads_and_neurons_cost_the_same_when_scores_do_not_add_up():
    scores = balanced(UnitScores(np.array([[1.0, 3.0]]), np.array([[-4.0, 12.0]])), head_cost=64.0, neuron_cost=1.0)
    assert scores.heads_LH == pytest.approx(np.array([[32.0, 96.0]]), rel=1e-5)
    assert scores.neurons_LF == pytest.approx(np.array([[0.0, 2.0]]), abs=1e-5)


def test_signed_scores_of_long_tails_starve_neither_kind():
    rng = np.random.default_rng(0)
    heads, neurons = rng.laplace(0.5, size=(6, 12)), rng.laplace(0.5, size=(6, 1536))
    scores = balanced(UnitScores(heads, neurons), head_cost=128.0, neuron_cost=1.0)
    share = scores.heads_LH.sum() / (scores.heads_LH.sum() + scores.neurons_LF.sum())
    assert share == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(np.argsort(scores.heads_LH, axis=None), np.argsort(heads, axis=None))
    worthless = balanced(UnitScores(-1.0 - heads**2, -1.0 - neurons**2), head_cost=128.0, neuron_cost=1.0)
    assert np.array_equal(np.argsort(worthless.heads_LH, axis=None), np.argsort(-(heads**2), axis=None))


def test_running_scores_are_unbiased_from_the_start():
    running = RunningScores(0.9)
    assert running.current is None
    running.observe(UnitScores(np.array([[4.0]]), np.array([[2.0]])))
    assert running.current.heads_LH == pytest.approx(4.0)
    running.observe(UnitScores(np.array([[0.0]]), np.array([[2.0]])))
    assert running.current.heads_LH == pytest.approx(4.0 * 0.09 / 0.19)
    assert running.current.neurons_LF == pytest.approx(2.0)


def test_learned_scores_are_summed():
    running = RunningScores(None)
    for value in (4.0, -1.0):
        running.observe(UnitScores(np.array([[value]]), np.array([[2.0]])))
    assert running.current.heads_LH.tolist() == [[3.0]]
    assert running.current.neurons_LF.tolist() == [[4.0]]


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="another shape"):
        Gates(MASKS).set_masks(MaskSet.dense(2, 3, 2))
