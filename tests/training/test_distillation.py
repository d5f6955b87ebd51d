import math

import pytest
import torch

from sparsebert.errors import ConfigError
from training.distillation import (
    Answer,
    DistillationConfig,
    DistillationObjective,
    LabelObjective,
    TeacherAnswers,
    compared_layers,
)

LABELS = torch.tensor([0])
ALIVE = [True, True]


def test_label_objective_is_cross_entropy():
    loss = LabelObjective().loss(Answer(torch.tensor([[0.0, math.log(3)]])), LABELS, [0], ALIVE)
    assert float(loss) == pytest.approx(math.log(4))


def test_distillation_against_a_value_made_by_hand():
    teacher = TeacherAnswers(torch.tensor([[9.0, 9.0], [0.0, 2 * math.log(3)]]))  # text 1 at T = 2: 1/4, 3/4
    objective = DistillationObjective(teacher, DistillationConfig(temperature=2.0, teacher_share=0.5))
    loss = objective.loss(Answer(torch.tensor([[0.0, 0.0]])), LABELS, [1], ALIVE)
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert float(loss) == pytest.approx(0.5 * 4 * divergence + 0.5 * math.log(2))
    assert not objective.needs_states


def test_an_equal_student_has_nothing_to_learn_from_the_teacher():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    objective = DistillationObjective(TeacherAnswers(logits), DistillationConfig(teacher_share=1.0))
    assert float(objective.loss(Answer(logits), LABELS, [0], ALIVE)) == pytest.approx(0.0, abs=1e-6)


def test_states_are_compared_where_a_layer_answers_for_them():
    logits = torch.zeros(1, 2)
    states = torch.tensor([[[1.0, 1.0]], [[2.0, 2.0]]])  # two layers, one text
    objective = DistillationObjective(
        TeacherAnswers(logits, states), DistillationConfig(teacher_share=1.0, states_weight=3.0)
    )
    student = [torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]])]  # squared errors 2 and 0
    assert objective.needs_states
    assert float(objective.loss(Answer(logits, student), LABELS, [0], [True, True])) == pytest.approx(3 * (2 + 0) / 2)
    assert float(objective.loss(Answer(logits, student), LABELS, [0], [True, False])) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("alive", "layers"),
    [
        ([True, True, True], [0, 1, 2]),
        ([True, False, True], [1, 2]),  # layer 0 answers for the teacher's layer 1
        ([True, False, False], [2]),
        ([False, True, True], [0, 1, 2]),
    ],
)
def test_layers_that_are_gone_are_answered_for_by_the_last_one_before(alive, layers):
    assert compared_layers(alive) == layers


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"teacher_share": 1.5}, {"states_weight": -1.0}])
def test_impossible_values_are_refused(values):
    with pytest.raises(ConfigError):
        DistillationConfig(**values)
