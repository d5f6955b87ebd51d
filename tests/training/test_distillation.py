import math

import pytest
import torch
from torch.nn import functional

from sparsebert.errors import ConfigError
from training.distillation import (
    Answer,
    DistillationConfig,
    DistillationObjective,
    LabelObjective,
    MarginObjective,
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


def test_a_margin_tells_the_loss_but_pulls_at_the_answer():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 6.0, 5.0]], requires_grad=True)  # margins 2 and 1
    labels = torch.tensor([0, 2])
    loss = MarginObjective(2.0).loss(Answer(logits), labels, [0, 1], ALIVE)
    assert float(loss.detach()) == pytest.approx(float(functional.cross_entropy(logits.detach(), labels)))
    loss.backward()
    sure = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-0.5))]
    pull = [math.sqrt(p * (1 - p)) / 2 for p in sure]  # of two texts
    expected = [[pull[0], -pull[0], 0], [0, pull[1], -pull[1]]]
    assert torch.allclose(logits.grad, torch.tensor(expected), atol=1e-6)


def test_the_square_of_a_margins_pull_is_the_curvature_of_the_teachers_loss():
    logits, way = torch.tensor([[1.5, -0.7]], dtype=torch.float64), torch.tensor([0.3, -0.9], dtype=torch.float64)
    teacher = DistillationObjective(TeacherAnswers(logits), DistillationConfig(temperature=3.0, teacher_share=1.0))
    moved = torch.zeros((), dtype=torch.float64, requires_grad=True)
    margin = MarginObjective(3.0).loss(Answer(logits + moved * way), LABELS, [0], ALIVE)
    (pull,) = torch.autograd.grad(margin, moved)

    def divergence(by):
        return teacher.loss(Answer(logits + by * way), LABELS, [0], ALIVE)

    curvature = torch.autograd.functional.hessian(divergence, torch.zeros((), dtype=torch.float64))
    assert float(curvature) > 0.1
    assert float(pull) ** 2 == pytest.approx(float(curvature), rel=1e-4)


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
