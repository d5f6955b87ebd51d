import numpy as np
import pytest
import torch

from sparsebert.errors import BudgetError, ConfigError
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.costs import ParameterCost
from training.geometry import geometry_of
from training.importance import Signals, Unattached, UnitScores
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification
from training.pruner import Pruner, PruningConfig, mask_change
from training.regularization import RegularizerConfig
from training.schedule import RampConfig, SparsityRamp
from training.selection import KeepFloor, SelectionRules
from training.units import layers_of

MODEL = SparseBertForSequenceClassification(
    SparseBertConfig(
        hidden_size=8,
        head_size=2,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=10,
        vocab_size=9,
        max_position_embeddings=9,
        num_labels=2,
    )
)
DENSE: Geometry = geometry_of(MODEL)
RULES = SelectionRules(floor=KeepFloor(heads=1, neurons=1))


class FixedImportance(Unattached):
    """Scores told in advance, one after the other; the last one stays."""

    adds_up = True

    def __init__(self, *scores: UnitScores) -> None:
        self._scores = list(scores)

    def score(self, signals: Signals) -> UnitScores:
        return self._scores.pop(0) if len(self._scores) > 1 else self._scores[0]


def take_step(pruner: Pruner, step: int, num_steps: int) -> None:
    pruner.gates(num_texts=1)
    pruner.after_backward(step, num_steps)


def scores(seed: int) -> UnitScores:
    rng = np.random.default_rng(seed)
    return UnitScores(rng.random((2, 4)), rng.random((2, 10)))


def make_pruner(*given: UnitScores, sparsity=0.5, every=5, decay=0.5, masks=None, rules=RULES, **values) -> Pruner:
    ramp = RampConfig(warmup_share=0.0, frozen_share=0.5)
    config = PruningConfig(ramp=ramp, update_every_steps=every, score_decay=decay, rules=rules, **values)
    return Pruner(
        MODEL, masks or MaskSet.dense(2, 4, 10), DENSE, config, SparsityRamp(final=sparsity, config=ramp),
        ParameterCost(), FixedImportance(*given),
    )  # fmt: skip


def test_masks_follow_the_schedule_and_then_freeze():
    pruner = make_pruner(scores(0))
    reached = []
    for step in range(40):
        take_step(pruner, step, 40)
        reached.append(pruner.encoder_sparsity)
    assert [event.step for event in pruner.events] == [5, 10, 15]  # at 20 the last change is below one neuron
    assert reached[3] == 0.0
    assert reached[4] == pytest.approx(0.5 * (1 - 0.75**3), abs=0.05)
    assert reached[19] == reached[39] == pytest.approx(0.5, abs=0.02)
    assert reached[39] >= 0.5
    assert pruner.gates.fixed
    assert pruner.removed_share == pruner.encoder_sparsity


def test_units_come_back_when_their_scores_rise():
    first, second = scores(0), scores(1)
    pruner = make_pruner(*([first] * 10), second, decay=0.0)
    for step in range(40):
        take_step(pruner, step, 40)
    returned = [sum(event.heads_returned_L) + sum(event.neurons_returned_L) for event in pruner.events]
    assert returned[0] == 0
    assert sum(returned) > 0
    left = sum(sum(event.neurons_left_L) - sum(event.neurons_returned_L) for event in pruner.events)
    assert left == 20 - sum(pruner.gates.masks.kept_neurons_L())


def test_one_cut_is_one_cut_also_after_an_earlier_target():
    ramp = RampConfig(shape="one-shot", frozen_share=0.0)
    masks = make_pruner(scores(0), sparsity=0.3).gates.masks
    config = PruningConfig(ramp=ramp, update_every_steps=5, rules=RULES)
    pruner = Pruner(
        MODEL, masks, DENSE, config, SparsityRamp(initial=0.3, final=0.6, config=ramp), ParameterCost(),
        FixedImportance(scores(1), scores(2)),
    )  # fmt: skip
    for step in range(40):
        take_step(pruner, step, 40)
    assert [event.step for event in pruner.events] == [40]
    assert pruner.masks_before(40).equals(masks)


def test_a_step_that_overflowed_is_not_scored():
    infinite = UnitScores(np.full((2, 4), np.inf), np.full((2, 10), np.nan))
    one, other = make_pruner(scores(0), infinite, scores(1)), make_pruner(scores(0), scores(1))
    for step in range(40):
        take_step(one, step, 40)
        if step != 1:
            take_step(other, step, 40)
    assert one.gates.masks.equals(other.gates.masks)


def test_a_cut_that_gates_did_not_choose_is_told(caplog):
    config = PruningConfig(
        ramp=RampConfig(shape="one-shot", frozen_share=0.0), rules=RULES, importance="gate",
        regularizer=RegularizerConfig(name="l0"),
    )  # fmt: skip
    ramp = SparsityRamp(final=0.67, config=config.ramp)
    pruner = Pruner(MODEL, MaskSet.dense(2, 4, 10), DENSE, config, ramp, ParameterCost())
    take_step(pruner, 0, 1)
    assert "the gates of L0 expect 1.6% to be removed and 67.0% are" in caplog.text


def test_a_short_run_still_ends_on_target():
    pruner = make_pruner(scores(0), every=100)
    for step in range(3):
        take_step(pruner, step, 3)
    assert pruner.encoder_sparsity >= 0.5


def test_a_restored_pruner_goes_on_the_same():
    one, other = make_pruner(scores(0), scores(1), scores(2)), make_pruner(scores(2))
    for step in range(7):
        take_step(one, step, 40)
    other.restore(one.state())
    for step in range(7, 40):
        take_step(one, step, 40)
        take_step(other, step, 40)
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


def test_without_reactivation_what_left_stays_away():
    first, second = scores(0), scores(1)
    pruner = make_pruner(*([first] * 10), second, decay=0.0, reactivation=False)
    for step in range(40):
        take_step(pruner, step, 40)
    assert sum(sum(event.heads_returned_L) + sum(event.neurons_returned_L) for event in pruner.events) == 0
    assert pruner.encoder_sparsity >= 0.5


def test_a_later_target_goes_on_from_the_masks_of_the_one_before():
    start = MaskSet.dense(2, 4, 10)
    start.heads_LH[1] = False  # a block that was removed
    pruner = make_pruner(UnitScores(np.ones((2, 4)), np.ones((2, 10))), masks=start, rules=SelectionRules())
    for step in range(40):
        take_step(pruner, step, 40)
    assert pruner.gates.masks.kept_heads_L()[1] == 0
    assert pruner.encoder_sparsity >= 0.5


def test_what_gates_learned_goes_into_the_weights():
    model = SparseBertForSequenceClassification(MODEL.config)
    config = PruningConfig(
        importance="gate", regularizer=RegularizerConfig(name="l1"), rules=RULES, ramp=RampConfig(frozen_share=0.5)
    )
    pruner = Pruner(
        model, MaskSet.dense(2, 4, 10), DENSE, config, SparsityRamp(final=0.3, config=config.ramp), ParameterCost()
    )
    assert [group.get("maximize", False) for group in pruner.parameter_groups(10)] == [False]
    with torch.no_grad():
        pruner.gates.neurons_LF.copy_(torch.linspace(0.1, 1.0, 20).view(2, 10))
    before = layers_of(model)[1].output.dense.weight.detach().clone()
    take_step(pruner, 9, 10)
    after = layers_of(model)[1].output.dense.weight
    assert torch.allclose(after, before * torch.linspace(0.1, 1.0, 20)[10:])
    assert pruner.gates.masks.kept_neurons_L() == (0, 0) or pruner.gates.masks.neurons_LF[1, -1]


def test_an_impossible_target_is_told_before_training():
    with pytest.raises(BudgetError, match="removing 99.0% of the encoder's parameters is not possible"):
        make_pruner(scores(0), sparsity=0.99)


@pytest.mark.parametrize("values", [{"update_every_steps": 0}, {"score_decay": 1.0}, {"importance": "gate"}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        PruningConfig(**values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ramp": RampConfig(shape="cubic", frozen_share=0.0)}, "--schedule cubic would have"),
        ({"ramp": RampConfig(shape="one-shot", frozen_share=0.1)}, "--frozen 0.1 would have"),
        (
            {"ramp": RampConfig(shape="sigmoid", frozen_share=0.0), "regularizer": RegularizerConfig(name="l1")},
            "--schedule sigmoid and --regularizer l1 would have",
        ),
    ],
)
def test_a_model_that_stands_still_has_no_use_for_what_trains(values, told):
    with pytest.raises(
        ConfigError, match=f"{told} the model train .* --importance margin .* or add --importance gradient"
    ):
        PruningConfig(importance="margin", **values)
    PruningConfig(importance="margin", ramp=RampConfig(shape="one-shot", frozen_share=0.0))
