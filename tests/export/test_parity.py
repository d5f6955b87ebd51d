import numpy as np
import pytest

from export.parity import LIMITS, ParityLimits, check_batch_invariance, check_parity, compare_logits
from sparsebert.errors import ConfigError, ParityError

REFERENCE = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
TEXTS = ["fine", "worst"]


def test_compare():
    parity = compare_logits(REFERENCE, REFERENCE + np.array([[0, 0.5], [0, 3.5]], np.float32))
    assert (parity.max_logit_difference, parity.label_agreement, parity.num_examples) == (3.5, 0.5, 2)


def test_equal_graphs_pass():
    assert check_parity(REFERENCE, REFERENCE, TEXTS, LIMITS["fp32"]).label_agreement == 1.0


def test_a_difference_names_the_worst_text():
    found = REFERENCE + np.array([[0, 0], [0, 0.01]], np.float32)
    with pytest.raises(
        ParityError, match=r"the graph differs by 1.00e-02 .* more than 1e-04; nothing was bundled; worst on 'worst'"
    ):
        check_parity(REFERENCE, found, TEXTS, LIMITS["fp32"])


def test_flipped_labels_fail_int8():
    with pytest.raises(ParityError, match=r"only 50.0% of the labels of the graph agree"):
        check_parity(REFERENCE, REFERENCE[:, ::-1] * [[1], [-1]], TEXTS, LIMITS["int8"])


def test_of_flipped_labels_the_worst_is_named():
    reference = np.array([[1.0, 2.0], [9.0, 0.0], [0.0, 0.2], [0.0, 0.1]], np.float32)
    found = np.array([[1.0, 2.0], [5.0, 0.0], [0.0, -0.2], [0.0, -0.1]], np.float32)
    texts = ["same", "moved most, label kept", "flipped by more", "flipped"]
    with pytest.raises(ParityError, match=r"only 50.0% .* worst on 'flipped by more'"):
        check_parity(reference, found, texts, LIMITS["int8"])
    with pytest.raises(ParityError, match=r"differs by 4.00e\+00 .* worst on 'moved most, label kept'"):
        check_parity(reference, found, texts, LIMITS["fp32"])


def test_not_a_number_fails_everything():
    found = np.array([[1.0, 2.0], [np.nan, 0.0]], np.float32)
    with pytest.raises(ParityError, match="not finite for the text 'worst'"):
        check_parity(REFERENCE, found, TEXTS, LIMITS["int8"])


def test_limits_are_checked():
    with pytest.raises(ConfigError):
        ParityLimits(max_logit_difference=None, min_label_agreement=1.2)


def test_batch_mates_must_not_move_a_logit():
    assert check_batch_invariance(REFERENCE, REFERENCE, TEXTS, LIMITS["int8"]) == 0.0
    moved = REFERENCE + np.array([[0, 0], [0, 0.001]], np.float32)
    assert check_batch_invariance(REFERENCE, moved, TEXTS, LIMITS["fp16"]) == pytest.approx(0.001, rel=1e-3)
    with pytest.raises(ParityError, match=r"by 1.00e-03 when texts of other lengths .* worst on 'worst'"):
        check_batch_invariance(REFERENCE, moved, TEXTS, LIMITS["int8"])
    moved[0, 0] = np.nan
    with pytest.raises(ParityError, match="worst on 'fine'"):
        check_batch_invariance(REFERENCE, moved, TEXTS, LIMITS["fp32"])
