import numpy as np
import pytest
import torch

from sparsebert.checkpoint import Example
from training.metrics import judge, one_answer, paired_difference

EXAMPLES = [Example(text="a", label=label) for label in (1, 1, 0, 0)]
ANSWERS = torch.tensor([[0.0, 1], [1, 0], [1, 0], [0, 1]])  # 1, 0, 0, 1: half right


def test_accuracy_and_f1_by_hand():
    metrics = judge(ANSWERS, EXAMPLES, with_f1=True)
    assert (metrics.num_examples, metrics.accuracy, metrics.difference) == (4, 0.5, None)
    assert metrics.f1 == pytest.approx(0.5)  # one true positive, one false, one missed
    assert judge(ANSWERS, EXAMPLES, with_f1=False).f1 is None


def test_the_difference_to_dense_is_paired():
    dense = torch.tensor([[0.0, 1], [0, 1], [1, 0], [0, 1]])  # three right, of which two are right here
    metrics = judge(ANSWERS, EXAMPLES, with_f1=False, dense_logits_NC=dense)
    assert metrics.difference == pytest.approx(-0.25)
    assert metrics.difference_low <= -0.25 <= metrics.difference_high


@pytest.mark.parametrize(("texts", "points"), [(20, 8.9), (872, 0.22)])
def test_equal_answers_on_few_texts_are_no_certainty(texts, points):
    right = np.arange(texts) % 10 > 0
    difference, low, high = paired_difference(right, right)
    assert (difference, -low) == (0.0, high)
    assert 100 * high == pytest.approx(points, rel=0.02)  # 1.96 * sqrt(1 / (n + 2)) / sqrt(n + 2)


def test_the_interval_is_that_of_a_paired_proportion():
    rng = np.random.default_rng(0)
    base = rng.random(4000) < 0.9
    flipped = np.arange(4000) < 200  # 5% of the answers differ
    mean, low, high = paired_difference(base ^ flipped, base)
    expected = (np.where(flipped, np.where(base, -1, 1), 0)).mean()
    assert mean == pytest.approx(expected)
    half = 1.96 * (0.05 - expected**2) ** 0.5 / 4000**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_a_model_that_gives_one_answer_is_told_where_several_are_asked_for():
    labels = ("bad", "good")
    one = torch.tensor([[0.0, 1], [0, 2], [0, 3]])
    assert one_answer(one, EXAMPLES[1:], labels) == "answers 'good' to each of 3 texts"
    assert one_answer(one[:1], EXAMPLES[2:3], labels) == ""  # one text, and wrong
    assert one_answer(one[:2], EXAMPLES[:2], labels) == one_answer(ANSWERS, EXAMPLES, labels) == ""
