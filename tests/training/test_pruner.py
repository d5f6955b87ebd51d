import numpy as np
import pytest

from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.importance import UnitScores
from training.masking import Gates
from training.pruner import Pruner, PruningConfig, mask_change
from training.schedule import CubicSchedule
from training.selection import KeepFloor

DENSE = Geometry(
    hidden_size=8, head_size=2, heads_L=(4, 4), neurons_L=(10, 10), vocabulary_size=9, max_positions=9, token_types=2,
    num_labels=2,
)  # fmt: skip


class FixedImportance:
    """Scores told in advance, one after the other; the last one stays."""

    def __init__(self, *scores: UnitScores) -> None:
        self._scores = list(scores)

    def score(self, gates: Gates) -> UnitScores:
        return self._scores.pop(0) if len(self._scores) > 1 else self._scores[0]


def scores(seed: int) -> UnitScores:
    rng = np.random.default_rng(seed)
    return UnitScores(rng.random((2, 4)), rng.random((2, 10)))


def make_pruner(*given: UnitScores, sparsity=0.5, every=5, decay=0.5) -> Pruner:
    config = PruningConfig(
        schedule=CubicSchedule(final_sparsity=sparsity, warmup_share=0.0, frozen_share=0.5),
        update_every_steps=every,
        score_decay=decay,
        floor=KeepFloor(heads=1, neurons=1),
    )
    return Pruner(Gates(MaskSet.dense(2, 4, 10)), DENSE, FixedImportance(*given), config)


def test_masks_follow_the_schedule_and_then_freeze():
    pruner = make_pruner(scores(0))
    reached = []
    for step in range(40):
        pruner.after_backward(step, 40)
        reached.append(pruner.encoder_sparsity)
    assert [event.step for event in pruner.events] == [5, 10, 15]  # at 20 the last change is below one neuron
    assert reached[3] == 0.0
    assert reached[4] == pytest.approx(0.5 * (1 - 0.75**3), abs=0.05)
    assert reached[19] == reached[39] == pytest.approx(0.5, abs=0.02)
    assert reached[39] >= 0.5
    assert not any(parameter.requires_grad for parameter in pruner.gates.parameters())


def test_units_come_back_when_their_scores_rise():
    first, second = scores(0), scores(1)
    pruner = make_pruner(*([first] * 10), second, decay=0.0)
    for step in range(40):
        pruner.after_backward(step, 40)
    returned = [sum(event.heads_returned_L) + sum(event.neurons_returned_L) for event in pruner.events]
    assert returned[0] == 0
    assert sum(returned) > 0
    left = sum(sum(event.neurons_left_L) - sum(event.neurons_returned_L) for event in pruner.events)
    assert left == 20 - sum(pruner.gates.masks.kept_neurons_L())


def test_a_short_run_still_ends_on_target():
    pruner = make_pruner(scores(0), every=100)
    for step in range(3):
        pruner.after_backward(step, 3)
    assert pruner.encoder_sparsity >= 0.5


def test_a_restored_pruner_goes_on_the_same():
    one, other = make_pruner(scores(0), scores(1), scores(2)), make_pruner(scores(2))
    for step in range(7):
        one.after_backward(step, 40)
    other.restore(one.state())
    for step in range(7, 40):
        one.after_backward(step, 40)
        other.after_backward(step, 40)
    assert one.gates.masks.equals(other.gates.masks)
    assert one.events == other.events


def test_a_mask_change_counts_per_layer():
    old = MaskSet(heads_LH=np.array([[1, 1], [0, 1]], bool), neurons_LF=np.array([[1], [0]], bool))
    new = MaskSet(heads_LH=np.array([[0, 0], [1, 1]], bool), neurons_LF=np.array([[1], [1]], bool))
    event = mask_change(old, new, step=3, target=0.5, reached=0.51)
    assert event.heads_left_L == (2, 0)
    assert event.heads_returned_L == (0, 1)
    assert event.neurons_left_L == (0, 0)
    assert event.neurons_returned_L == (0, 1)


@pytest.mark.parametrize("values", [{"update_every_steps": 0}, {"score_decay": 1.0}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        PruningConfig(schedule=CubicSchedule(final_sparsity=0.5), **values)
