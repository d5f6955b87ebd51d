import pytest

from sparsebert.checkpoint import Metrics, RunRecord
from sparsebert.errors import ConfigError
from training.config import SearchConfig
from training.search import SearchRecord, Trial, next_share, pooled_difference

SEARCH = SearchConfig(max_drop=1.0, resolution=0.05)
TARGETS = (0.5, 0.67, 0.8)


def walk(loses_from: float, targets=TARGETS) -> list[float]:
    """The shares that are tried when everything from `loses_from` on loses 2 points and all else nothing."""
    trials: list[Trial] = []
    while (share := next_share(trials, targets, SEARCH)) is not None:
        difference = -2.0 if share >= loses_from else 0.0
        trials.append(Trial(share, difference, difference - 0.5, difference + 0.5))
    return [trial.share for trial in trials]


def test_targets_are_walked_and_the_last_gap_is_halved():
    assert walk(0.7) == [0.5, 0.67, 0.8, 0.735, 0.7025]
    assert walk(0.78) == [0.5, 0.67, 0.8, 0.735, 0.7675]


def test_when_nothing_loses_the_largest_target_is_the_answer():
    assert walk(2.0) == [0.5, 0.67, 0.8]


def test_when_the_first_target_loses_the_gap_to_dense_is_halved():
    assert walk(0.3)[:3] == [0.5, 0.25, 0.375]


def test_how_sure_a_verdict_is():
    assert Trial(0.5, -0.5, -0.9, -0.1).is_sure(SEARCH)
    assert not Trial(0.5, -0.5, -1.4, 0.4).is_sure(SEARCH)
    assert Trial(0.5, -2.0, -2.9, -1.1).is_sure(SEARCH)


def test_a_tolerance_below_nothing_is_refused():
    with pytest.raises(ConfigError, match="--max-drop is -1"):
        SearchConfig(max_drop=-1.0)


def test_the_record_says_what_passed_and_how_sure_it_is():
    trials = [Trial(0.5, -0.5, -1.4, 0.4), Trial(0.67, -2.0, -2.9, -1.1)]
    record = SearchRecord.of(trials, SEARCH, "sparse-50")
    assert [(trial.share, trial.passes, trial.sure) for trial in record.trials] == [
        (0.5, True, False), (0.67, False, True),
    ]  # fmt: skip
    assert (record.max_drop, record.best) == (1.0, "sparse-50")


def test_splits_are_weighed_by_their_texts():
    small = Metrics(num_examples=100, accuracy=0.9, difference=-0.04, difference_low=-0.07, difference_high=-0.01)
    large = Metrics(num_examples=300, accuracy=0.9, difference=0.0, difference_low=-0.02, difference_high=0.02)
    record = RunRecord.model_construct(metrics={"validation": small, "holdout": large})
    half = ((0.25 * 0.03) ** 2 + (0.75 * 0.02) ** 2) ** 0.5
    assert pooled_difference(record) == pytest.approx((-0.01, -0.01 - half, -0.01 + half))
